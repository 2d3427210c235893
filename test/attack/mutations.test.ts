import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import {
  AdamW,
  type Loaded,
  Muon,
  type Optimizer,
  Parameter,
  type ParameterState,
  Root,
  RootError,
} from '../../lib/index.js';
import { gaussian } from '../support.js';
import { asVersion1, join, mutate, split } from './mutate.js';
import { attack, type Chance, refusal } from './support.js';

/** Milliseconds that a load of a few kilobytes may take, on the slowest machine. */
const limit = 5000;

/** An optimizer, and files that were saved of it. */
interface Victim {
  readonly optimizer: Optimizer;
  readonly params: readonly Parameter[];
  readonly files: readonly Buffer[];
}

const common = { device: 'cpu', coefficients: 'muon', steps: 2 } as const;

const makers: (() => { optimizer: Optimizer; params: Parameter[] })[] = [
  () => {
    const params = model({ 'mlp.up': { shape: [6, 9] }, conv: { shape: [4, 3, 2, 2] }, bias: { shape: [5] } });
    return { params, optimizer: new Root(params, common) };
  },
  () => {
    const params = model({
      experts: { shape: [3, 4, 5], stack: true },
      qkv: { shape: [6, 4], split: 3 },
      dense: { shape: [3, 7], layout: 'in-out' },
    });
    return { params, optimizer: new Root(params, { ...common, normalize: 'rows', threshold: null }) };
  },
  () => {
    const params = model({ row: { shape: [1, 8] }, column: { shape: [8, 1] }, scalar: { shape: [] } });
    return { params, optimizer: new Muon(params, { ...common, gradientThreshold: {}, normalize: 'rows' }) };
  },
  () => {
    const params = model({ table: { shape: [7, 3] }, norm: { shape: [3] } });
    return { params, optimizer: new AdamW(params, { device: 'cpu', gradientThreshold: 'robust' }) };
  },
  () => {
    const params = model({ first: { shape: [4, 4] }, second: { shape: [5, 2] }, ['__proto__']: { shape: [2, 2] } });
    const groups = params.map((one, i) => ({ params: [one], lr: 0.01 * (i + 1), momentum: 0.9 - 0.1 * i }));
    return { params, optimizer: new Root(groups, common) };
  },
];

type Shape = Omit<ConstructorParameters<typeof Parameter>[0], 'name'>;

function model(shapes: Record<string, Shape>): Parameter[] {
  return Object.entries(shapes).map(([name, options], i) => {
    const one = new Parameter({ name, ...options });
    one.data.set(gaussian(one.size, i + 1));
    return one;
  });
}

function step({ optimizer, params }: Pick<Victim, 'optimizer' | 'params'>, seed: number): void {
  params.forEach((one, i) => {
    one.grad.set(gaussian(one.size, 100 * seed + i));
  });
  optimizer.stepSync();
}

let folder: string;
let file: string;
let victims: Victim[];
beforeAll(async () => {
  folder = mkdtempSync(path.join(tmpdir(), 'root-optimizer-mutations-'));
  file = path.join(folder, 'run.safetensors');
  victims = [];
  for (const make of makers) {
    const made = make();
    const files: Buffer[] = [];
    const tensors = { 'w.ema': { shape: [2, 3], data: gaussian(6) }, one: { shape: [], data: Float32Array.of(1) } };
    for (const options of [{}, { notes: { place: '7', train: '{"step":3}' }, tensors }]) {
      await made.optimizer.save(file, options);
      files.push(readFileSync(file));
      step(made, files.length);
    }
    files.push(...files.flatMap((one) => [asVersion1(one, true)]));
    // Files of the first version say nothing of rows and gradients. Those of a step without rows are such files.
    files.push(asVersion1(files[0]!, false));
    step(made, 9);
    victims.push({ ...made, files });
  }
});
afterAll(() => {
  for (const { optimizer } of victims) optimizer.dispose();
  rmSync(folder, { recursive: true });
});

/** Everything that a load may change: arrays, numbers and nulls. */
function contentsOf({ optimizer, params }: Victim): { data: Float32Array; state: ParameterState }[] {
  return params.map((one) => ({ data: one.data.slice(), state: optimizer.stateOf(one) }));
}

/** What a file says of an optimizer, read in the plainest way. It is asked only of files that were loaded. */
function contentsIn(
  bytes: Buffer,
  { optimizer, params }: Victim,
): Loaded & { contents: ReturnType<typeof contentsOf> } {
  const { header, tensors } = split(bytes);
  const parsed = JSON.parse(header) as Record<string, { shape: number[]; data_offsets: [number, number] }>;
  const { __metadata__: metadata, ...entries } = parsed as typeof parsed & { __metadata__: Record<string, string> };
  const steps = Number(metadata['step']);
  const described = JSON.parse(metadata['parameters']!) as Record<string, (number | null)[] | undefined>[];
  const values = (name: string): Float32Array => {
    const [start, end] = entries[name]!.data_offsets;
    return new Float32Array(Uint8Array.from(tensors.subarray(start, end)).buffer);
  };
  const own = new Set<string>();
  const contents = params.map((one) => {
    const says = described.find(({ name }) => (name as unknown) === one.name)!;
    const tensor = (key: string) => {
      own.add(`${one.name}.${key}`);
      return values(`${one.name}.${key}`);
    };
    const none = Array.from({ length: Math.max(1, one.matrices.length) }, () => null);
    const gradients = {
      gradientThresholds: says['gradientThresholds'] ?? none,
      gradientScales: says['gradientScales'] ?? none,
    };
    const first = {
      step: steps,
      gradientThreshold: gradients.gradientThresholds[0] ?? null,
      gradientScale: gradients.gradientScales[0] ?? null,
    };
    const data = tensor('data');
    if ('expAvg' in optimizer.stateOf(one)) {
      return { data, state: { ...first, expAvg: tensor('expAvg'), expAvgSq: tensor('expAvgSq') } };
    }
    const thresholds = says['thresholds']!;
    const isNormalized = (says['normalized'] as unknown) === true;
    const state: ParameterState = {
      ...{ ...first, ...gradients, thresholds, threshold: thresholds[0] ?? null },
      momentumBuffer: tensor('momentumBuffer'),
      rowSecondMoment: isNormalized ? tensor('rowSecondMoment') : null,
    };
    return { data, state };
  });
  const further = Object.keys(entries).filter((name) => !own.has(name));
  return {
    step: steps,
    notes: JSON.parse(metadata['notes'] ?? '{}') as Record<string, string>,
    tensors: Object.fromEntries(further.map((name) => [name, { shape: entries[name]!.shape, data: values(name) }])),
    contents,
  };
}

/** Bits of arrays, and other values as JSON has them, which tells no −0 from 0. */
function text(value: unknown): string {
  return JSON.stringify(value, (_, one: unknown) =>
    ArrayBuffer.isView(one) ? Buffer.from(one.buffer, one.byteOffset, one.byteLength).toString('hex') : one,
  );
}

function sorted(value: object): unknown {
  return Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
}

function plain(contents: ReturnType<typeof contentsOf>): string {
  return text(contents.map(({ data, state }) => [data, sorted(state)]));
}

let [loaded, refused] = [0, 0];

async function attempt(chance: Chance): Promise<void> {
  const victim = chance.pick(victims);
  const { optimizer, params } = victim;
  const original = chance.pick(victim.files);
  const bytes = mutate(original, chance.pick(chance.pick(victims).files), chance);
  const options = { options: chance.pick(['check', 'ignore'] as const), tensors: chance.happens(0.5) };
  writeFileSync(file, bytes);
  const before = contentsOf(victim);
  const result = await outcome(optimizer.load(file, options));
  if (Object.keys(Object.prototype).length > 0) throw new Error('Object.prototype has changed');
  if (result instanceof Error) {
    refused++;
    if (!(result instanceof RootError) || result.code !== 'ERR_CHECKPOINT') throw result;
    if (result.message.length >= 4000) throw new Error(`A message of ${result.message.length} characters`);
    if (plain(contentsOf(victim)) !== plain(before)) throw new Error(`A refused load has changed something: ${result}`);
    return;
  }
  loaded++;
  const after = contentsOf(victim);
  const { contents, ...says } = contentsIn(bytes, victim);
  try {
    for (const value of after.flatMap(({ data, state }) => [data, ...(Object.values(state) as unknown[])])) {
      if (value instanceof Float32Array) expect(value.every((one) => Number.isFinite(one))).toBe(true);
    }
    params.forEach(({ name }, i) => {
      expect(`${name}: ${plain([after[i]!])}`).toBe(`${name}: ${plain([contents[i]!])}`);
    });
    const { tensors, ...found } = result as Loaded;
    expect(found).toEqual({ step: says.step, notes: says.notes });
    expect(text(sorted(tensors))).toBe(text(options.tensors ? sorted(says.tensors) : []));
    stepOrSay(victim);
  } finally {
    optimizer.restore(new Map(params.map((one, i) => [one, before[i]!.state])));
    params.forEach((one, i) => {
      one.data.set(before[i]!.data);
    });
  }
}

/** After a load the optimizer goes on, unless the file's values are too large to go on from. */
function stepOrSay(victim: Victim): void {
  try {
    step(victim, 7);
  } catch (error) {
    if (!(error instanceof RootError) || error.code !== 'ERR_NON_FINITE') throw error;
  }
}

/** What a load comes to, also as an error: the one that it rejects with, or one of its taking too long. */
async function outcome(loading: Promise<Loaded>): Promise<unknown> {
  const start = performance.now();
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise((resolve) => (timer = setTimeout(() => resolve(new Error('The load does not end')), limit)));
  const found = await Promise.race([loading.catch((error: unknown) => error), late]);
  clearTimeout(timer);
  return performance.now() - start > limit ? new Error(`The load took more than ${limit} ms`) : found;
}

attack(
  'a damaged checkpoint loads as it says, or is refused and changes nothing',
  { small: 500, large: 75_000, note: () => `${loaded} loaded, ${refused} refused` },
  attempt,
);

test('thresholds that only some matrices of a parameter have are refused', async () => {
  const victim = victims[1]!;
  const { header, tensors } = split(victim.files[0]!);
  const some = header.replace('\\"thresholds\\":[null,null,null]', '\\"thresholds\\":[null,0,null]');
  expect(some).not.toBe(header);
  writeFileSync(file, join({ header: some, tensors }));
  await refusal(() => victim.optimizer.load(file), 'ERR_CHECKPOINT');
});
