import { type FileHandle, open } from 'node:fs/promises';
import { Writable } from 'node:stream';
import { describe, expected, messageOf, RootError } from '../errors.js';
import type { TextStream } from './stream.js';

/**
 * Writes lines of JSON. Each line is handed to the system before the next begins, so that a killed process leaves whole
 * lines.
 */
export interface MetricsWriter {
  write(record: object): Promise<void>;
  close(): Promise<void>;
}

/**
 * @param target the name of a file, which is appended to, or a stream, which is left open
 * @throws RootError ERR_INVALID_ARGUMENT where the file cannot be opened
 */
export async function openMetrics(target: string | TextStream): Promise<MetricsWriter> {
  if (typeof target !== 'string') {
    if (!(target instanceof Writable)) throw expected('metrics', 'the name of a file or a writable stream', target);
    return new StreamMetrics(target);
  }
  try {
    return new FileMetrics(target, await open(target, 'a'));
  } catch (cause) {
    throw unwritable(describe(target), cause);
  }
}

class FileMetrics implements MetricsWriter {
  readonly #path: string;
  readonly #file: FileHandle;

  constructor(path: string, file: FileHandle) {
    this.#path = path;
    this.#file = file;
  }

  async write(record: object): Promise<void> {
    const { size } = await this.#file.stat();
    try {
      await this.#file.appendFile(`${JSON.stringify(record)}\n`);
    } catch (cause) {
      // A full disk may have taken part of the line. A target that cannot be truncated, such as a pipe, keeps that
      // part.
      await this.#file.truncate(size).catch(() => undefined);
      throw unwritable(describe(this.#path), cause);
    }
  }

  async close(): Promise<void> {
    await this.#file.close();
  }
}

class StreamMetrics implements MetricsWriter {
  readonly #stream: Writable;
  // Without a listener a stream's error would end the process. The write that met the error reports it.
  readonly #onError = (): void => undefined;

  constructor(stream: Writable) {
    this.#stream = stream;
    stream.on('error', this.#onError);
  }

  async write(record: object): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      this.#stream.write(`${JSON.stringify(record)}\n`, (error) => {
        if (error === undefined || error === null) resolve();
        else reject(unwritable('a stream', error));
      });
    });
  }

  close(): Promise<void> {
    if (!this.#stream.errored) this.#stream.off('error', this.#onError);
    return Promise.resolve();
  }
}

function unwritable(target: string, cause: unknown): RootError {
  return new RootError(
    'ERR_INVALID_ARGUMENT',
    `Expected metrics to be a file or stream that can be written to, got ${target}: ${messageOf(cause)}`,
    { cause },
  );
}
