import type { Chance } from './support.js';

/*
 * Damages checkpoints: in their bytes, in the values of their tensors, and in what their headers say. Most headers stay
 * JSON of the right length, so that they reach the checks behind the parser.
 */

type Header = Record<string, unknown>;

export interface Checkpoint {
  readonly header: string;
  readonly tensors: Buffer;
}

export function split(file: Buffer): Checkpoint {
  const begin = 8 + Number(file.readBigUInt64LE());
  return { header: file.toString('utf8', 8, begin), tensors: file.subarray(begin) };
}

export function join({ header, tensors }: Checkpoint): Buffer {
  const text = Buffer.from(header);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  return Buffer.concat([length, text, tensors]);
}

/** The same checkpoint as version 1 wrote it, in which each parameter had the algorithm and settings of its group. */
export function asVersion1(file: Buffer, hasGradientThresholds: boolean): Buffer {
  const { header, tensors } = split(file);
  const { __metadata__: metadata, ...entries } = JSON.parse(header) as Header & {
    __metadata__: Record<string, string>;
  };
  const { groups, parameters, ...rest } = metadata;
  const ofGroups = JSON.parse(groups!) as object[];
  const described = (JSON.parse(parameters!) as (Record<string, unknown> & { group: number })[]).map((one) => {
    const { group, gradientThresholds, gradientScales, layout, normalized, ...older } = one;
    const later = { gradientThresholds, gradientScales, layout, normalized };
    return { ...older, ...ofGroups[group], ...(hasGradientThresholds ? later : {}) };
  });
  const __metadata__ = { ...rest, version: '1', parameters: JSON.stringify(described) };
  return join({ header: JSON.stringify({ __metadata__, ...entries }), tensors });
}

/** Damages a file in one to three ways. `other` is another valid file, of which parts may be taken. */
export function mutate(file: Buffer, other: Buffer, chance: Chance): Buffer {
  let mutated = file;
  for (let times = chance.pick([1, 1, 1, 2, 3]); times > 0; times--) {
    // What has lost its header can only lose more of its bytes.
    const isWhole = mutated.length >= 8 && mutated.readBigUInt64LE() <= BigInt(mutated.length - 8);
    if (!isWhole || chance.happens(0.25)) mutated = mutateBytes(mutated, other, chance);
    else if (chance.happens(0.15)) mutated = mutateValues(mutated, chance);
    else {
      const { header, tensors } = split(mutated);
      mutated = join({ header: mutateHeader(header, chance), tensors });
    }
  }
  return mutated;
}

function mutateBytes(file: Buffer, other: Buffer, chance: Chance): Buffer {
  const bytes = Buffer.from(file);
  const at = chance.integer(0, bytes.length);
  const to = Math.min(bytes.length, at + chance.pick([1, 2, 4, 8, 64, 1000]));
  const [before, part, after] = [bytes.subarray(0, at), bytes.subarray(at, to), bytes.subarray(to)];
  const noise = () => Buffer.from(Array.from({ length: to - at }, () => chance.integer(0, 255)));
  return chance.pick<() => Buffer>([
    () => bytes.map((byte, i) => (i === at ? byte ^ (1 << chance.integer(0, 7)) : byte)) as Buffer,
    () => Buffer.concat([before, noise(), after]),
    () => Buffer.concat([before, noise(), part, after]),
    () => Buffer.concat([before, part, part, after]),
    () => Buffer.concat([before, after]),
    () => before,
    () => Buffer.concat([bytes, chance.pick([part, bytes, other])]),
    () => Buffer.concat([before, other.subarray(Math.min(at, other.length))]),
    () => {
      if (bytes.length < 8) return bytes;
      const length = bytes.readBigUInt64LE();
      const lengths = [0n, 1n, length - 1n, length + 1n, length * 2n, 1n << 31n, 1n << 53n, 1n << 63n, ~0n];
      bytes.writeBigUInt64LE(BigInt.asUintN(64, chance.pick(lengths)));
      return bytes;
    },
  ])();
}

const hostileFloats = [NaN, Infinity, -Infinity, -1, -0, 1e-45, 3.4e38, -3.4e38];

/** Writes hostile values into tensors. */
function mutateValues(file: Buffer, chance: Chance): Buffer {
  const { header, tensors } = split(file);
  const bytes = Buffer.from(tensors);
  for (let times = chance.pick([1, 1, 5, 100]); times > 0 && bytes.length >= 4; times--) {
    bytes.writeFloatLE(chance.pick(hostileFloats), 4 * chance.integer(0, (bytes.length >> 2) - 1));
  }
  return join({ header, tensors: bytes });
}

/** Changes what a header says. What is not JSON any more is changed as text. */
function mutateHeader(text: string, chance: Chance): string {
  if (chance.happens(0.15)) return mutateText(text, chance);
  try {
    const header = JSON.parse(text) as Header;
    const metadata = header['__metadata__'] as Record<string, string> | undefined;
    // Half of the changes are to the JSON within the JSON.
    const inner = ['groups', 'parameters', 'notes'].filter((key) => typeof metadata?.[key] === 'string');
    if (metadata !== undefined && inner.length > 0 && chance.happens(0.5)) {
      const key = chance.pick(inner);
      metadata[key] = chance.happens(0.15)
        ? mutateText(metadata[key]!, chance)
        : JSON.stringify(mutateJson(JSON.parse(metadata[key]!), chance));
      return JSON.stringify(header);
    }
    return JSON.stringify(chance.happens(0.3) ? mutateTensors(header, chance) : mutateJson(header, chance));
  } catch {
    return mutateText(text, chance);
  }
}

/** Puts into the text what no object of JavaScript would print: keys that come twice, `__proto__`, deep lists. */
function mutateText(text: string, chance: Chance): string {
  const places = [...text.matchAll(/[{[,:]/g)].map(({ index }) => index + 1);
  const at = places.length === 0 ? 0 : chance.pick(places);
  const deep = chance.pick([3, 1000, 50_000]);
  const inserted = chance.pick([
    '"__proto__":{"dtype":"F32","shape":[],"data_offsets":[0,4]},',
    '"__proto__":{"group":0,"toString":null},',
    '"__proto__":null,',
    '"constructor":{"prototype":{"polluted":true}},',
    '"name":"mlp.up",',
    '"step":"3",',
    '1e999,',
    '-0,',
    'null,',
    '"\\ud800",',
    `${'['.repeat(deep)}${']'.repeat(deep)},`,
    `${'{"a":'.repeat(deep)}1${'}'.repeat(deep)},`,
    `"${'x'.repeat(100 * deep)}":1,`,
  ]);
  return text.slice(0, at) + inserted + text.slice(at);
}

interface TensorEntry {
  dtype: unknown;
  shape: number[];
  data_offsets: [number, number];
}

/** Changes entries of tensors so that they contradict the others, or mean something else. */
function mutateTensors(header: Header, chance: Chance): Header {
  const names = Object.keys(header).filter((name) => name !== '__metadata__');
  const isEntry = (name: string) => Array.isArray((header[name] as Partial<TensorEntry> | null)?.data_offsets);
  const entries = names.filter(isEntry).map((name) => header[name] as TensorEntry);
  if (entries.length === 0) return header;
  const [one, another] = [chance.pick(entries), chance.pick(entries)];
  const [first, second] = [chance.pick(names), chance.pick(names)];
  chance.pick<() => void>([
    () => ([one.data_offsets, another.data_offsets] = [another.data_offsets, one.data_offsets]),
    () => ([header[first], header[second]] = [header[second], header[first]]),
    () => (header[`${first}.copy`] = header[first]),
    () => (header[`${first}.empty`] = { dtype: 'F32', shape: [0], data_offsets: [0, 0] }),
    () => (one.dtype = chance.pick(['F16', 'F64', 'I32', 'f32', '', 'BF16'])),
    () => (one.shape = [...one.shape].reverse()),
    () => one.shape.push(chance.pick([0, 1, 2, -1, 2 ** 32])),
    () => (one.data_offsets = [one.data_offsets[0] + chance.pick([-4, -1, 1, 4]), one.data_offsets[1]]),
    () => (one.data_offsets = one.data_offsets.map((offset) => offset + chance.pick([-4, 4])) as [number, number]),
    () => (one.data_offsets = [one.data_offsets[1], one.data_offsets[0]]),
  ])();
  return header;
}

type Container = Record<string | number, unknown>;

/** Changes one value, key or place anywhere in a tree. */
function mutateJson(tree: unknown, chance: Chance): unknown {
  const places: [Container, string][] = [];
  const collect = (value: unknown) => {
    if (typeof value !== 'object' || value === null) return;
    for (const key of Object.keys(value)) {
      places.push([value as Container, key]);
      collect((value as Container)[key]);
    }
  };
  collect(tree);
  if (places.length === 0 || chance.happens(0.02)) return hostileValue(tree, chance);
  const [holder, key] = chance.pick(places);
  const [otherHolder, otherKey] = chance.pick(places);
  const value = holder[key];
  const taken = otherHolder[otherKey];
  chance.pick<() => void>([
    () => (holder[key] = hostileValue(value, chance)),
    () => (holder[key] = hostileValue(value, chance)),
    () => (holder[key] = hostileValue(value, chance)),
    () => (Array.isArray(holder) ? holder.splice(Number(key), 1) : Reflect.deleteProperty(holder, key)),
    () => (Array.isArray(holder) ? holder.push(structuredClone(value)) : (holder[`${key}2`] = structuredClone(value))),
    () => (holder[key] = structuredClone(taken)),
    () => ([holder[key], otherHolder[otherKey]] = [structuredClone(taken), structuredClone(value)]),
    () => (holder[key] = chance.pick([[value], { value }, { 0: value, length: 1 }, JSON.stringify(value)])),
    () => Object.defineProperty(holder, '__proto__', { value, enumerable: true, configurable: true, writable: true }),
  ])();
  return tree;
}

/** Another value, often of the same kind. */
function hostileValue(value: unknown, chance: Chance): unknown {
  if (typeof value === 'number' && chance.happens(0.7)) {
    const numbers = [0, -0, 1, -1, 0.5, value + 1, value - 1, -value, value * 2, value / 3];
    return chance.pick([...numbers, 1e15, 2 ** 31, 2 ** 32, 2 ** 53, 1e38, 1e39, Number.MAX_VALUE, 5e-324, -1e300]);
  }
  if (typeof value === 'string' && chance.happens(0.7)) {
    const numeric = ['0', '1', '2', '3', '-1', '1.5', '1e3', '007', ' 3', '9'.repeat(400), '1000000000000001'];
    const named = ['root', 'muon', 'adamw', 'F32', 'in-out', 'out-in', '__proto__', 'constructor', 'toString'];
    return chance.pick([...numeric, ...named, '', `${value} `, value.slice(1), '\u0000', '\ud800', 'x'.repeat(10_000)]);
  }
  return chance.pick<unknown>([null, true, false, 0, 1, -1, 'x', '', [], {}, [[]], [null], [1, 2], { length: 1e9 }]);
}
