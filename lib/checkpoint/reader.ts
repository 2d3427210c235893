import { type BigIntStats, constants } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { allocate } from '../arrays.js';
import { messageOf, quote, RootError } from '../errors.js';
import { product } from '../validate.js';
import {
  bytesPerElement,
  checkpointError,
  decode,
  type ElementType,
  type Entry,
  hasFewParts,
  type Header,
  isElementType,
  malformed,
  parseHeader,
} from './format.js';

/** Elements of one tensor, one after the other. The next piece may take the memory of the values. */
export interface Piece {
  readonly name: string;
  /** The tensor's elements before these. */
  readonly offset: number;
  readonly values: Float32Array;
}

/** Bytes of the header of a file of which nothing is known. */
const usualLimit = 16 << 20;
/**
 * Bytes that are read or written at once. Two such buffers are in use at a time. Larger ones are no faster, and hold up
 * the event loop for longer.
 */
export const pieceBytes = 4 << 20;

/** An open file whose header has been checked: every tensor lies within it, and none overlaps another. */
export class SafetensorsFile {
  readonly metadata: Header['metadata'];
  readonly tensors: Header['tensors'];

  private constructor(
    private readonly file: string,
    private readonly handle: FileHandle,
    private readonly version: string,
    { metadata, tensors }: Header,
  ) {
    this.metadata = metadata;
    this.tensors = tensors;
  }

  /**
   * @param limit the most bytes that the header may take
   * @throws RootError ERR_CHECKPOINT where the file cannot be read or is not a safetensors file
   */
  static async open(file: string, limit = usualLimit): Promise<SafetensorsFile> {
    // To open a FIFO would wait for a writer, without the second flag, which Windows does not know.
    const flags = constants.O_RDONLY | ((constants.O_NONBLOCK as number | undefined) ?? 0);
    const handle = await open(file, flags).catch((cause: unknown) => {
      throw checkpointError(`Cannot read ${file}: ${messageOf(cause)}`, cause);
    });
    try {
      const found = await handle.stat({ bigint: true });
      if (!found.isFile()) throw checkpointError(`Cannot read ${file}: it is not a file`);
      const size = Number(found.size);
      const start = new BigUint64Array(1);
      if (size < 8) throw malformed(file, `it is ${size} bytes long`);
      await readAll(handle, new Uint8Array(start.buffer), 0);
      const length = Number(start[0]);
      if (length > size - 8) throw malformed(file, `its header of ${length} bytes does not fit into ${size}`);
      const tooLarge = () => malformed(file, `its header is larger than one of such a file, ${limit} bytes at most`);
      if (length > limit) throw tooLarge();
      const bytes = new Uint8Array(length);
      await readAll(handle, bytes, 8);
      if (!hasFewParts(bytes, limit)) throw tooLarge();
      return new SafetensorsFile(file, handle, versionOf(found), parseHeader(file, bytes, size));
    } catch (error) {
      await handle.close();
      throw error instanceof RootError ? error : checkpointError(`Cannot read ${file}: ${messageOf(error)}`, error);
    }
  }

  /**
   * Reads tensors piece by piece, in the order of the file. The next piece is read while this one is used.
   * @throws RootError ERR_CHECKPOINT, ERR_OUT_OF_MEMORY
   */
  async *pieces(names: Iterable<string>): AsyncGenerator<Piece> {
    const reads = readsOf([...names].map((name) => [name, this.entryOf(name)]));
    const memory = reads.reduce((most, { end, start }) => Math.max(most, end - start), 0);
    const buffers = [0, 1].map(() => allocateBytes(memory, this.file));
    const begin = (index: number): Promise<unknown> => {
      const read = reads[index];
      if (read === undefined) return Promise.resolve();
      const reading = readAll(this.handle, buffers[index % 2]!.subarray(0, read.end - read.start), read.start);
      reading.catch(() => undefined); // it may fail before it is awaited
      return reading;
    };
    let next = begin(0);
    try {
      for (const [i, { start, parts }] of reads.entries()) {
        await next;
        next = begin(i + 1);
        const bytes = buffers[i % 2]!;
        for (const { name, type, offset, from, to } of parts) {
          yield { name, offset, values: decode(type, bytes.subarray(from - start, to - start)) };
        }
      }
    } catch (error) {
      throw error instanceof RootError
        ? error
        : checkpointError(`Cannot read ${this.file}: ${messageOf(error)}`, error);
    } finally {
      await next.catch(() => undefined); // the file has to stay open until then
    }
  }

  /** Reads a whole tensor. */
  async read(name: string): Promise<Float32Array> {
    const values = allocate(product(this.entryOf(name).shape), `tensor ${quote(name)} of ${this.file}`);
    for await (const piece of this.pieces([name])) values.set(piece.values, piece.offset);
    return values;
  }

  /** @throws RootError ERR_CHECKPOINT where the file was written to since it was opened */
  async checkUnchanged(): Promise<void> {
    if (versionOf(await this.handle.stat({ bigint: true })) === this.version) return;
    throw checkpointError(`Expected ${this.file} to stay as it was while it is read, but it was written to`);
  }

  async close(): Promise<void> {
    await this.handle.close();
  }

  /** @throws RootError ERR_CHECKPOINT where there is no such tensor, or one of a type that is not read */
  entryOf(name: string): Entry & { readonly type: ElementType } {
    const entry = this.tensors.get(name);
    if (entry === undefined) throw malformed(this.file, `it has no tensor ${quote(name)}`);
    const { type } = entry;
    if (isElementType(type)) return { ...entry, type };
    throw checkpointError(
      `Expected tensor ${quote(name)} of ${this.file} to be F64, F32, F16 or BF16, got ${quote(type)}`,
    );
  }
}

/** A stretch of the file, and the parts of it that are elements of one tensor each. */
interface Read {
  start: number;
  end: number;
  readonly parts: {
    readonly name: string;
    readonly type: ElementType;
    readonly offset: number;
    readonly from: number;
    readonly to: number;
  }[];
}

/** Small tensors that lie side by side are read at once, large ones in several pieces. */
function readsOf(tensors: [name: string, entry: Entry & { readonly type: ElementType }][]): Read[] {
  const reads: Read[] = [];
  for (const [name, { type, start, end }] of tensors.sort(([, a], [, b]) => a.start - b.start)) {
    const size = bytesPerElement(type);
    for (let from = start; from < end;) {
      let read = reads.at(-1);
      if (read?.end !== from || read.end - read.start > pieceBytes - size) {
        read = { start: from, end: from, parts: [] };
        reads.push(read);
      }
      const room = pieceBytes - (read.end - read.start);
      const to = Math.min(end, from + room - (room % size));
      read.parts.push({ name, type, offset: (from - start) / size, from, to });
      from = read.end = to;
    }
  }
  return reads;
}

/** What differs after the file was written to. Another name for it does not count. */
function versionOf({ size, mtimeNs }: BigIntStats): string {
  return `${size} ${mtimeNs}`;
}

async function readAll(handle: FileHandle, bytes: Uint8Array, position: number): Promise<void> {
  for (let done = 0; done < bytes.length;) {
    const { bytesRead } = await handle.read(bytes, done, bytes.length - done, position + done);
    if (bytesRead === 0) throw new Error('the file ended early');
    done += bytesRead;
  }
}

function allocateBytes(size: number, file: string): Uint8Array {
  return new Uint8Array(allocate(Math.ceil(size / 4), `a buffer to read ${file}`).buffer);
}
