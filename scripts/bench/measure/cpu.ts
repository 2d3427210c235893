import { spawnSync } from 'node:child_process';
import { addon } from '../../../lib/binding.js';
import {
  devices,
  Muon,
  newtonSchulzCoefficients,
  orthogonalizeSync,
  Parameter,
  type Precision,
  Root,
} from '../../../lib/index.js';
import { median, plainFlops } from '../../common/numbers.js';
import { paper } from '../../common/paper.js';
import { gaussian } from '../../common/random.js';
import { timedStep } from './step-parts.js';
import { inTurns } from './turns.js';

type Shape = readonly [rows: number, columns: number];

/** The figures of a shape on a number of threads; `npm run bench -- --help` says what each means. */
export interface Row {
  set: string;
  precision: Precision;
  shape: string;
  threads: number;
  form: string;
  orthogonalizeMs: number;
  effective: number;
  executed: number;
  peakShare: number;
  stepMs: number;
  productsMs: number;
  overProducts: number;
  speedup: number;
  quantileShare: number;
  gradientShare: number;
  rowsShare: number;
  memoryMatrices: number;
}

/** The measurements of one instruction set. */
export interface Measured {
  /** GFLOP/s that one core reaches in registers alone, by precision. */
  peakGflops: Partial<Record<Precision, number>>;
  rows: Row[];
  /** How many times faster one step on 64 matrices of 128 × 128 is than 64 steps on one of them each. */
  manySmall: { set: string; precision: Precision; threads: number; ratio: number }[];
}

export interface Work {
  shapes: Shape[];
  threads: number[];
  precisions: Precision[];
  /** Milliseconds per task. */
  time: number;
}

const rounds = 7;

/**
 * Measures in a process of its own, because the addon chooses its kernels once. Returns undefined where the processor
 * lacks the set.
 */
export function measureSet(set: string, work: Work): Measured | undefined {
  const env = { ...process.env, ROOT_OPTIMIZER_INSTRUCTION_SET: set };
  const args = [...process.execArgv, __filename, JSON.stringify(work)];
  const { status, stdout, stderr } = spawnSync(process.execPath, args, { env, encoding: 'utf8' });
  if (status === 0) return JSON.parse(stdout) as Measured;
  if (!stderr.includes('ROOT_OPTIMIZER_INSTRUCTION_SET')) throw new Error(stderr);
  return undefined;
}

if (require.main === module) console.log(JSON.stringify(measureAll(JSON.parse(process.argv[2]!) as Work)));

function measureAll({ shapes, threads, precisions, time }: Work): Measured {
  const { instructionSet: set, precisions: possible } = devices().cpu;
  const peakGflops: Measured['peakGflops'] = {};
  for (const precision of possible) peakGflops[precision] = addon().cpuPeak(precision) / 1e9;
  const measured: Measured = { peakGflops, rows: [], manySmall: [] };
  for (const precision of precisions.filter((one) => peakGflops[one] !== undefined)) {
    for (const shape of shapes) {
      for (const row of measureShape(shape, threads, precision, time, peakGflops)) measured.rows.push({ set, ...row });
    }
    for (const count of threads) {
      measured.manySmall.push({ set, precision, threads: count, ratio: measureManySmall(count, precision, time) });
    }
  }
  return measured;
}

function measureShape(
  shape: Shape,
  threads: number[],
  precision: Precision,
  time: number,
  peaks: Measured['peakGflops'],
): Omit<Row, 'set'>[] {
  const contestants = threads.map((count) => contestant(shape, count, precision));
  const tasks = contestants.map((one) => one.tasks);
  const turns = inTurns(rounds, tasks, { calls: 2, time: time / rounds });
  const memory = contestants.map(({ root }) => root.memoryBytes);
  for (const { optimizers } of contestants) for (const one of optimizers) one.dispose();

  const [m, n] = [Math.min(...shape), Math.max(...shape)];
  const coefficients = Float64Array.from(newtonSchulzCoefficients(shape).flat());
  const plan = addon().newtonSchulzPlan('cpu', precision, true, m, n, coefficients);
  const leastMs = ((plan.flops - plan.float32Flops) / peaks[precision]! + plan.float32Flops / peaks.float32!) / 1e6;
  const { physicalCores } = devices().cpu;
  type Turn = (typeof turns)[number][number];
  return threads.map((count, i) => {
    const typical = (figure: (turn: Turn, first: Turn) => number) =>
      median(turns.map((round) => figure(round[i]!, round[0]!)));
    const orthogonalizeMs = typical((turn) => turn.orthogonalize);
    const { samples } = contestants[i]!.timed;
    return {
      precision,
      shape: shape.join('x'),
      threads: count,
      form: plan.form === 'gram' ? `gram ${plan.legs.join('+')}` : plan.form,
      orthogonalizeMs,
      effective: plainFlops(m, n) / orthogonalizeMs / 1e6,
      executed: plan.flops / orthogonalizeMs / 1e6,
      peakShare: leastMs / orthogonalizeMs / Math.min(count, physicalCores),
      stepMs: typical((turn) => turn.root),
      productsMs: median(samples.map(({ productsMs }) => productsMs)),
      overProducts: median(samples.map(({ stepMs, productsMs }) => stepMs / productsMs)),
      speedup: typical((turn, first) => first.root / turn.root),
      quantileShare: typical((turn) => 1 - turn.muon / turn.root),
      gradientShare: typical((turn) => turn.gradient / turn.root - 1),
      rowsShare: typical((turn) => turn.rows / turn.root - 1),
      memoryMatrices: memory[i]! / (4 * m * n),
    };
  });
}

function contestant(shape: Shape, threads: number, precision: Precision) {
  const size = shape[0] * shape[1];
  const options = { ...paper, lr: 1e-3, threads, precision, device: 'cpu' } as const;
  const parameter = () => new Parameter({ name: 'w', shape, data: gaussian(size), grad: gaussian(size) });
  const [root, muon] = [new Root([parameter()], options), new Muon([parameter()], options)];
  const gradient = new Root([parameter()], { ...options, gradientThreshold: { quantile: 0.99, scale: 1, growth: 2 } });
  const rows = new Root([parameter()], { ...options, normalize: 'rows' });
  const timed = timedStep(shape, threads, precision);
  const x = gaussian(size);
  const out = new Float32Array(size);
  const tasks = {
    orthogonalize: () => orthogonalizeSync(x, shape, { threads, precision, device: 'cpu', out }),
    root: () => root.stepSync(),
    muon: () => muon.stepSync(),
    gradient: () => gradient.stepSync(),
    rows: () => rows.stepSync(),
    timed: () => timed.run(),
  };
  return { tasks, root, timed, optimizers: [root, muon, gradient, rows, timed] };
}

function measureManySmall(threads: number, precision: Precision, time: number): number {
  const shape = [128, 128];
  const parameters = Array.from(
    { length: 128 },
    (_, i) => new Parameter({ name: `w${i}`, shape, grad: gaussian(128 * 128) }),
  );
  const options = { ...paper, threads, precision, device: 'cpu' } as const;
  const together = new Root(parameters.slice(0, 64), options);
  const apart = parameters.slice(64).map((one) => new Root([one], options));
  const tasks = { one: () => together.stepSync(), many: () => apart.forEach((optimizer) => optimizer.stepSync()) };
  const turns = inTurns(rounds, [tasks], { calls: 2, time: time / rounds });
  for (const optimizer of [together, ...apart]) optimizer.dispose();
  return median(turns.map(([turn]) => turn!.many / turn!.one));
}
