import { addon } from '../../../lib/binding.js';
import {
  type Device,
  devices,
  Muon,
  newtonSchulzCoefficients,
  Parameter,
  type Precision,
  Root,
} from '../../../lib/index.js';
import { deviceMemory } from '../../common/device-memory.js';
import { median, plainFlops } from '../../common/numbers.js';
import { gaussian } from '../../common/random.js';
import { milliseconds } from '../../common/time.js';

/** The matrices of a model. */
export interface Case {
  readonly name: string;
  readonly shapes: readonly (readonly [rows: number, columns: number])[];
}

export interface Figures {
  readonly muonMs: number;
  readonly rootMs: number;
  /** A step of ROOT that copies gradients and parameters in and out. */
  readonly copyingMs: number;
  /** Floating-point operations of a step, counted as five plain iterations, and as the addon computes them. */
  readonly plainFlops: number;
  readonly executedFlops: number;
  readonly memoryBytes: number;
}

export function measureCase({ shapes }: Case, precision: Precision, device: Device, rounds: number): Figures {
  const { description } = deviceOf(device);
  const memory = deviceMemory(description.startsWith('Emulated'), Number(/\d+$/.exec(device)?.[0] ?? 0));
  const random = gaussian(Math.max(...shapes.map(([rows, columns]) => rows * columns)));
  const held = [Muon, Root].map((Kind) => {
    const params = shapes.map((shape, i) => new Parameter({ name: `w${i}`, shape }));
    const optimizer = new Kind(params, { device, precision, hostSync: 'manual', lr: 1e-3 });
    for (const one of params) memory.write(optimizer.deviceMemory(one).grad, random.subarray(0, one.size));
    return optimizer;
  });
  const steps = held.map((optimizer) => () => optimizer.stepSync());
  const [muonMs, rootMs] = medians(rounds, steps) as [number, number];
  const { memoryBytes } = held[1]!;
  for (const optimizer of held) optimizer.dispose();

  const params = shapes.map(([rows, columns], i) => {
    return new Parameter({ name: `w${i}`, shape: [rows, columns], grad: random.subarray(0, rows * columns) });
  });
  const copying = new Root(params, { device, precision, lr: 1e-3 });
  const [copyingMs] = medians(Math.max(3, Math.round(rounds / 3)), [() => copying.stepSync()]) as [number];
  copying.dispose();
  return { muonMs, rootMs, copyingMs, memoryBytes, ...flopsOf(shapes, precision) };
}

/**
 * Returns the median milliseconds of each task. Three calls of each come first and do not count. The tasks take turns.
 */
function medians(rounds: number, tasks: readonly (() => unknown)[]): number[] {
  for (const task of tasks) for (let i = 0; i < 3; i++) task();
  const samples = Array.from({ length: rounds }, () => tasks.map(milliseconds));
  return tasks.map((_, i) => median(samples.map((round) => round[i]!)));
}

function flopsOf(shapes: Case['shapes'], precision: Precision): Pick<Figures, 'plainFlops' | 'executedFlops'> {
  let [plain, executed] = [0, 0];
  for (const [rows, columns] of shapes) {
    const coefficients = Float64Array.from(newtonSchulzCoefficients([rows, columns]).flat());
    plain += plainFlops(rows, columns);
    executed += addon().newtonSchulzPlan('cuda:0', precision, true, rows, columns, coefficients).flops;
  }
  return { plainFlops: plain, executedFlops: executed };
}

/** @throws Error where there is no such device */
export function deviceOf(device: Device): { description: string } {
  const { cuda } = devices();
  const found = cuda.devices.find((one) => device === 'cuda' || one.name === device);
  if (found === undefined) throw new Error(`There is no device ${device}: ${cuda.reason ?? 'the first is cuda:0'}`);
  return found;
}
