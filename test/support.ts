import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { type Device, devices, type Optimizer, Parameter, RootError, type RootErrorCode } from '../lib/index.js';

export { relativeError } from '../scripts/common/numbers.js';

// Jest's globals are slow to reach: a million uses take a second.
const { cos, imul, log, PI, sqrt } = Math;

/**
 * Returns every device of this machine, or only the one that ROOT_OPTIMIZER_TEST_DEVICE names. With REQUIRE_CUDA=1 the
 * lack of a CUDA device is a failure.
 */
export function devicesUnderTest(): Device[] {
  const { cuda } = devices();
  const only = process.env['ROOT_OPTIMIZER_TEST_DEVICE'];
  if (only !== undefined) return [only as Device];
  if (process.env['REQUIRE_CUDA'] === '1' && cuda.devices.length === 0) {
    throw new Error(`REQUIRE_CUDA is set, but ${String(cuda.reason)}`);
  }
  return ['cpu', ...cuda.devices.slice(0, 1).map((one) => one.name)];
}

/** Whether a device is the emulator of test/cuda-emulator, which does some 2 GFLOP/s. */
export function isEmulated(device: Device): boolean {
  return devices().cuda.devices.some(
    ({ name, description }) => name === device && description.startsWith('Emulated GPU'),
  );
}

/**
 * Runs a script with the library's names in a process of its own, so that it starts with other environment variables.
 * Returns what it printed as JSON.
 */
export function runScript<T>(script: string, env: Record<string, string>): T {
  const lib = JSON.stringify(path.join(__dirname, '..', 'lib', 'index.ts'));
  const names = 'AdamW, Muon, Parameter, Root, devices, orthogonalizeSync';
  const code = `require('tsx/cjs'); const { ${names} } = require(${lib}); (async () => {${script}})()`;
  const { status, stdout, stderr } = spawnSync(process.execPath, ['-e', code], {
    encoding: 'utf8',
    cwd: path.join(__dirname, '..'),
    env: { ...process.env, ...env },
    maxBuffer: 1 << 28,
  });
  if (status !== 0) throw new Error(`exit status ${status}: ${stderr}`);
  return JSON.parse(stdout) as T;
}

export function golden<T>(name: string): { cases: T[] } {
  return JSON.parse(readFileSync(path.join(__dirname, 'golden', `${name}.json`), 'utf8')) as { cases: T[] };
}

/** A generator of uniform numbers in [0, 1) that is the same for the same seed (mulberry32). */
export function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = imul(state ^ (state >>> 15), 1 | state);
    t = (t + imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Standard normal values. */
export function gaussian(size: number, seed = 1): Float32Array {
  const next = random(seed);
  const values = new Float32Array(size);
  for (let i = 0; i < size; i++) values[i] = sqrt(-2 * log(1 - next())) * cos(2 * PI * next());
  return values;
}

/**
 * A matrix of `count` directions. Each lies along one coordinate of the longer side and `along` coordinates of the
 * shorter one, which no other direction has. Its elements are ± its size, in random signs. Directions are equally large
 * where `spread` is 0, and else between e^-spread and 1.
 */
export function alongFewCoordinates(
  [rows, columns]: readonly [number, number],
  { count, along, spread, next }: { count: number; along: number; spread: number; next: () => number },
): Float32Array {
  const x = new Float32Array(rows * columns);
  for (let i = 0; i < count; i++) {
    const value = spread === 0 ? 1 : Math.exp(-spread * next());
    for (let q = i * along; q < (i + 1) * along; q++) {
      x[rows < columns ? q * columns + i : i * columns + q] = next() < 0.5 ? value : -value;
    }
  }
  return x;
}

/** A digest of an array's bits. Unlike numbers, bits tell −0 from 0. */
export function bits(array: Float32Array): string {
  return createHash('sha1')
    .update(new Uint8Array(array.buffer, array.byteOffset, array.byteLength))
    .digest('hex');
}

/** Checks that `action` throws, or rejects with, a RootError of that code whose message matches. */
export async function expectError(action: () => unknown, code: RootErrorCode, message: RegExp | string): Promise<void> {
  let error: unknown;
  try {
    await action();
  } catch (thrown) {
    error = thrown;
  }
  expect(error).toBeInstanceOf(RootError);
  expect((error as RootError).message).toMatch(message);
  expect(error).toMatchObject({ name: 'RootError', code });
}

/** Parameters `<prefix>0`, `<prefix>1`, … of these shapes, filled with the same normal values every time. */
export function parameters(prefix: string, shapes: readonly number[][]): Parameter[] {
  return shapes.map((shape, i) => {
    const one = new Parameter({ name: `${prefix}${i}`, shape });
    one.data.set(gaussian(one.size, i + 1));
    return one;
  });
}

/** Fills the gradients: the same ones in each model, and others every step. */
export function fillGradients(step: number, ...models: Parameter[][]): void {
  for (const model of models) {
    model.forEach((one, i) => {
      one.grad.set(gaussian(one.size, 100 * step + i));
    });
  }
}

/** Digests of the bits of a model and its state. */
export function snapshot(optimizer: Optimizer, model: readonly Parameter[]): string[] {
  const digest = (value: unknown) => (value instanceof Float32Array ? bits(value) : JSON.stringify(value));
  return model.flatMap((one) => [bits(one.data), ...Object.values(optimizer.stateOf(one)).map(digest)]);
}
