import { cut, messageOf, quote, RootError } from '../errors.js';
import { isRecord, product } from '../validate.js';

/*
 * The format (https://huggingface.co/docs/safetensors) begins with the length of the header (8 bytes, little-endian).
 * The header (JSON, padded by spaces) and the tensors follow without gaps. Every platform that the addon is built for
 * is little-endian.
 */

/** The types of elements that are read, and the bytes of one. Files of this package have float32 alone. */
const elementBytes = { F64: 8, F32: 4, F16: 2, BF16: 2 };
export type ElementType = keyof typeof elementBytes;

/** A tensor's place in a file. */
export interface Entry {
  /** The type as the file names it. Elements of other types than `ElementType` are not read. */
  readonly type: string;
  readonly shape: readonly number[];
  /** Bytes [start, end) of the file. */
  readonly start: number;
  readonly end: number;
}

export interface Header {
  readonly metadata: Readonly<Record<string, string>>;
  readonly tensors: ReadonlyMap<string, Entry>;
}

export function isElementType(type: string): type is ElementType {
  return Object.hasOwn(elementBytes, type);
}

export function bytesPerElement(type: ElementType): number {
  return elementBytes[type];
}

/** The start of a file of float32 tensors: the header's length, and the header. */
export function encodeHeader(
  metadata: Readonly<Record<string, string>>,
  tensors: readonly { readonly name: string; readonly shape: readonly number[] }[],
): Uint8Array {
  const entries: [string, unknown][] = [['__metadata__', metadata]];
  let offset = 0;
  for (const { name, shape } of tensors) {
    const end = offset + product(shape) * elementBytes.F32;
    entries.push([name, { dtype: 'F32', shape, data_offsets: [offset, end] }]);
    offset = end;
  }
  const json = Buffer.from(JSON.stringify(Object.fromEntries(entries)));
  const length = Math.ceil(json.length / 8) * 8;
  const bytes = Buffer.alloc(8 + length, ' ');
  bytes.writeBigUInt64LE(BigInt(length), 0);
  json.copy(bytes, 8);
  return bytes;
}

/** What the parts of a header, once parsed, take at least. A small header may have many. */
const partBytes = 64;
const mostPartBytes = 64 << 20;

/** Whether a header that is parsed takes little memory: each list, object, element and entry of it takes some. */
export function hasFewParts(header: Uint8Array, limit: number): boolean {
  let parts = 0;
  for (const byte of header) if (byte === 0x2c || byte === 0x5b || byte === 0x7b) parts++; // , [ {
  return parts * partBytes <= Math.max(mostPartBytes, 4 * limit);
}

/**
 * Reads a header, and checks that its tensors lie in a file of `size` bytes one after the other.
 * @throws RootError ERR_CHECKPOINT
 */
export function parseHeader(file: string, bytes: Uint8Array, size: number): Header {
  let parsed: unknown;
  try {
    parsed = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch (cause) {
    throw malformed(file, `its header is not JSON: ${cut(messageOf(cause))}`, cause);
  }
  if (!isRecord(parsed)) throw malformed(file, 'its header is not an object');
  const { __metadata__: metadata = {}, ...entries } = parsed;
  if (!isRecord(metadata) || !Object.values(metadata).every((value) => typeof value === 'string')) {
    throw malformed(file, 'its metadata are not strings');
  }
  const begin = 8 + bytes.length;
  const tensors = new Map(Object.entries(entries).map(([name, entry]) => [name, parseEntry(file, name, entry, begin)]));
  let end = begin;
  for (const [name, entry] of [...tensors].sort(([, a], [, b]) => a.start - b.start || a.end - b.end)) {
    if (entry.start !== end) {
      throw malformed(file, `tensor ${quote(name)} begins at byte ${entry.start} rather than ${end}`);
    }
    end = entry.end;
  }
  if (end !== size) throw malformed(file, `it is ${size} bytes long rather than ${end}`);
  return { metadata: metadata as Record<string, string>, tensors };
}

function parseEntry(file: string, name: string, entry: unknown, begin: number): Entry {
  if (!isRecord(entry)) throw malformed(file, `the entry of tensor ${quote(name)} is not an object`);
  const { dtype, shape, data_offsets: offsets } = entry;
  if (typeof dtype !== 'string' || !isNaturals(shape) || !isNaturals(offsets) || offsets.length !== 2) {
    throw malformed(file, `the entry of tensor ${quote(name)} is not valid`);
  }
  const [start, end] = offsets as [number, number];
  const bytes = isElementType(dtype) ? product(shape) * elementBytes[dtype] : Math.max(0, end - start);
  if (end - start !== bytes) {
    throw malformed(file, `tensor ${quote(name)} takes ${end - start} bytes rather than ${bytes}`);
  }
  return { type: dtype, shape, start: begin + start, end: begin + end };
}

function isNaturals(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((one) => Number.isSafeInteger(one) && (one as number) >= 0);
}

/**
 * The elements as float32. Those of type F32 are not copied where they are aligned. Values too large for float32 become
 * infinite.
 */
export function decode(type: ElementType, bytes: Uint8Array): Float32Array {
  const { buffer, byteOffset, byteLength } = bytes;
  const size = elementBytes[type];
  if (byteOffset % size !== 0) return decode(type, bytes.slice());
  const length = byteLength / size;
  if (type === 'F32') return new Float32Array(buffer, byteOffset, length);
  if (type === 'F64') return Float32Array.from(new Float64Array(buffer, byteOffset, length));
  const halves = new Uint16Array(buffer, byteOffset, length);
  const values = new Float32Array(length);
  if (type === 'BF16') {
    const bits = new Uint32Array(values.buffer);
    for (let i = 0; i < length; i++) bits[i] = halves[i]! << 16;
  } else {
    float16 ??= Float32Array.from({ length: 1 << 16 }, (_, half) => float16Value(half));
    for (let i = 0; i < length; i++) values[i] = float16[halves[i]!]!;
  }
  return values;
}

/** The values of all float16, made when the first is read. */
let float16: Float32Array | undefined;

function float16Value(half: number): number {
  const sign = half >> 15 === 0 ? 1 : -1;
  const exponent = (half >> 10) & 31;
  const fraction = half & 1023;
  if (exponent === 31) return fraction === 0 ? sign * Infinity : NaN;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

export function malformed(file: string, why: string, cause?: unknown): RootError {
  return checkpointError(`${file} is not a valid safetensors file: ${why}`, cause);
}

export function checkpointError(message: string, cause?: unknown): RootError {
  return new RootError('ERR_CHECKPOINT', message, cause === undefined ? undefined : { cause });
}
