import { randomBytes } from 'node:crypto';
import { type FileHandle, open, realpath, rename, stat, unlink } from 'node:fs/promises';
import path from 'node:path';
import { messageOf, RootError } from '../errors.js';
import { isRecord, product } from '../validate.js';

/*
 * The format (https://huggingface.co/docs/safetensors) begins with the length of the header (8 bytes, little-endian).
 * The header (JSON, padded by spaces) and the tensors follow without gaps. Here all tensors are float32. Every platform
 * that the addon is built for is little-endian.
 */

/** A tensor to be written. `values` is called when the tensor's turn comes, so that only one is in memory at a time. */
export interface TensorSource {
  readonly name: string;
  readonly shape: readonly number[];
  readonly values: () => Float32Array;
}

const elementSize = Float32Array.BYTES_PER_ELEMENT;
const headerLimit = 100_000_000;
/** Reads and writes of more than 2 GiB fail on some systems. */
const chunk = 1 << 30;

/**
 * Writes the file atomically: a failure leaves an older file of that name whole.
 * @throws RootError ERR_CHECKPOINT
 */
export async function writeSafetensors(
  file: string,
  metadata: Readonly<Record<string, string>>,
  tensors: readonly TensorSource[],
): Promise<void> {
  const target = await realpath(file).catch(() => file);
  const temporary = path.join(path.dirname(target), `.${path.basename(target)}.${randomBytes(6).toString('hex')}.tmp`);
  try {
    const mode = await stat(target).then(
      ({ mode }) => mode & 0o777,
      () => 0o666,
    );
    const handle = await open(temporary, 'wx', mode);
    try {
      await writeAll(handle, header(metadata, tensors));
      for (const { name, shape, values } of tensors) {
        const array = values();
        if (array.length !== product(shape)) {
          throw checkpointError(`Expected tensor "${name}" to be of ${product(shape)} elements, got ${array.length}`);
        }
        await writeAll(handle, array);
      }
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(temporary, target);
  } catch (error) {
    await unlink(temporary).catch(() => undefined);
    throw error instanceof RootError ? error : checkpointError(`Cannot write ${file}: ${messageOf(error)}`, error);
  }
  await syncFolder(path.dirname(target));
}

function header(metadata: Readonly<Record<string, string>>, tensors: readonly TensorSource[]): Uint8Array {
  const entries: [string, unknown][] = [['__metadata__', metadata]];
  let offset = 0;
  for (const { name, shape } of tensors) {
    const end = offset + product(shape) * elementSize;
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

async function writeAll(handle: FileHandle, view: ArrayBufferView): Promise<void> {
  for (let done = 0; done < view.byteLength;) {
    const { bytesWritten } = await handle.write(bytesOf(view, done));
    done += bytesWritten;
  }
}

/** Makes the file's new name survive a power failure. Does nothing where a folder cannot be opened. */
async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, 'r').catch(() => undefined);
  await handle?.sync().catch(() => undefined);
  await handle?.close();
}

interface Entry {
  readonly shape: readonly number[];
  readonly start: number;
  readonly end: number;
}

/** An open file whose header has been checked: every tensor lies within it, and none overlaps another. */
export class SafetensorsFile {
  private constructor(
    private readonly file: string,
    private readonly handle: FileHandle,
    readonly metadata: Readonly<Record<string, string>>,
    readonly tensors: ReadonlyMap<string, Entry>,
  ) {}

  /** @throws RootError ERR_CHECKPOINT where the file cannot be read or is not a safetensors file */
  static async open(file: string): Promise<SafetensorsFile> {
    const handle = await open(file, 'r').catch((cause: unknown) => {
      throw checkpointError(`Cannot read ${file}: ${messageOf(cause)}`, cause);
    });
    try {
      const { size } = await handle.stat();
      const start = new BigUint64Array(1);
      if (size < 8) throw malformed(file, `it is ${size} bytes long`);
      await readAll(handle, start, 0);
      const length = Number(start[0]);
      if (length > headerLimit || length > size - 8) {
        throw malformed(file, `its header of ${length} bytes does not fit into ${size}`);
      }
      const bytes = new Uint8Array(length);
      await readAll(handle, bytes, 8);
      const { metadata, tensors } = parseHeader(file, bytes, size);
      return new SafetensorsFile(file, handle, metadata, tensors);
    } catch (error) {
      await handle.close();
      throw error instanceof RootError ? error : checkpointError(`Cannot read ${file}: ${messageOf(error)}`, error);
    }
  }

  async read(name: string): Promise<Float32Array> {
    const entry = this.tensors.get(name);
    if (entry === undefined) throw malformed(this.file, `it has no tensor "${name}"`);
    try {
      const values = new Float32Array(product(entry.shape));
      await readAll(this.handle, values, entry.start);
      return values;
    } catch (cause) {
      throw checkpointError(`Cannot read tensor "${name}" of ${this.file}: ${messageOf(cause)}`, cause);
    }
  }

  async close(): Promise<void> {
    await this.handle.close();
  }
}

function parseHeader(file: string, bytes: Uint8Array, size: number): Pick<SafetensorsFile, 'metadata' | 'tensors'> {
  let parsed: unknown;
  try {
    parsed = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch (cause) {
    throw malformed(file, `its header is not JSON: ${messageOf(cause)}`, cause);
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
    if (entry.start !== end) throw malformed(file, `tensor "${name}" begins at byte ${entry.start} rather than ${end}`);
    end = entry.end;
  }
  if (end !== size) throw malformed(file, `it is ${size} bytes long rather than ${end}`);
  return { metadata: metadata as Record<string, string>, tensors };
}

function parseEntry(file: string, name: string, entry: unknown, begin: number): Entry {
  if (!isRecord(entry)) throw malformed(file, `the entry of tensor "${name}" is not an object`);
  const { dtype, shape, data_offsets: offsets } = entry;
  if (dtype !== 'F32') throw malformed(file, `tensor "${name}" is ${JSON.stringify(dtype)} rather than "F32"`);
  if (!isNaturals(shape) || !isNaturals(offsets) || offsets.length !== 2) {
    throw malformed(file, `the entry of tensor "${name}" is not valid`);
  }
  const [start, end] = offsets as [number, number];
  if (end - start !== product(shape) * elementSize) {
    throw malformed(file, `tensor "${name}" takes ${end - start} bytes rather than ${product(shape) * elementSize}`);
  }
  return { shape, start: begin + start, end: begin + end };
}

async function readAll(handle: FileHandle, view: ArrayBufferView, position: number): Promise<void> {
  for (let done = 0; done < view.byteLength;) {
    const { bytesRead } = await handle.read(bytesOf(view, done), { position: position + done });
    if (bytesRead === 0) throw new Error('the file ended early');
    done += bytesRead;
  }
}

function bytesOf(view: ArrayBufferView, from: number): Uint8Array {
  return new Uint8Array(view.buffer, view.byteOffset + from, Math.min(chunk, view.byteLength - from));
}

function isNaturals(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((one) => Number.isSafeInteger(one) && (one as number) >= 0);
}

function malformed(file: string, why: string, cause?: unknown): RootError {
  return checkpointError(`${file} is not a valid safetensors file: ${why}`, cause);
}

export function checkpointError(message: string, cause?: unknown): RootError {
  return new RootError('ERR_CHECKPOINT', message, cause === undefined ? undefined : { cause });
}
