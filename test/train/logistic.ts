import { existsSync, readdirSync, readFileSync, readlinkSync } from 'node:fs';
import path from 'node:path';
import { AdamW, type Model, Parameter, type StepMetrics } from '../../lib/index.js';
import { gaussian } from '../support.js';

/** Examples of y = sign(x · truth), row by row. */
export interface Batch {
  x: Float32Array;
  y: Float32Array;
}

const width = 6;
const truth = gaussian(width, 7);

export function batch(rows: number, seed: number): Batch {
  const x = gaussian(rows * width, seed);
  const y = Float32Array.from({ length: rows }, (_, row) => Math.sign(dot(x, row, truth)));
  return { x, y };
}

export function batches(count: number, rows = 8): Batch[] {
  return Array.from({ length: count }, (_, i) => batch(rows, 100 + i));
}

function dot(x: Float32Array, row: number, weights: Float32Array): number {
  return weights.reduce((sum, weight, i) => sum + weight * x[row * width + i]!, 0);
}

/** Logistic regression: the gradient of the mean of log(1 + exp(−y x·w)). */
export function logistic(name = 'w'): Model<Batch> & { w: Parameter } {
  const w = new Parameter({ name, shape: [width] });
  return {
    w,
    parameters: [w],
    lossAndGradients({ x, y }) {
      const gradient = new Float64Array(width);
      let loss = 0;
      y.forEach((label, row) => {
        const margin = label * dot(x, row, w.data);
        loss += Math.log1p(Math.exp(-margin)) / y.length;
        const factor = -label / (1 + Math.exp(margin)) / y.length;
        for (let i = 0; i < width; i++) gradient[i]! += factor * x[row * width + i]!;
      });
      w.grad.set(gradient);
      return loss;
    },
  };
}

export function adamw(model: Model<Batch>, lr = 0.1): AdamW {
  return new AdamW([...model.parameters], { lr, weightDecay: 0 });
}

export function readLines(file: string): StepMetrics[] {
  const text = readFileSync(file, 'utf8');
  expect(text.endsWith('\n')).toBe(true);
  return text
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as StepMetrics);
}

/** Whether this process holds the file open. Where the system does not say, false. */
export function isOpen(file: string): boolean {
  const fds = '/proc/self/fd';
  if (!existsSync(fds)) return false;
  return readdirSync(fds).some((fd) => {
    try {
      return readlinkSync(path.join(fds, fd)) === file;
    } catch {
      return false;
    }
  });
}
