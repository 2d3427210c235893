import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { Bench } from 'tinybench';
import type { Optimizer } from '../../binding.js';
import { addon } from '../../lib/binding.js';
import {
  devices,
  Muon,
  newtonSchulzCoefficients,
  orthogonalizeSync,
  Parameter,
  type Precision,
  Root,
} from '../../lib/index.js';

const SHAPES = '128x128,128x512,256x1024,512x512,768x768,768x3072,1024x1024,1024x4096';

const HELP = `Usage: npm run bench -- [options]

Median times, per shape, of orthogonalising a matrix and of whole steps on a parameter of that shape. The tasks of a shape, on all numbers
of threads, take turns in rounds.

  --shapes <list>     rows x columns (default ${SHAPES})
  --threads <list>    CPU threads (default 1 and the physical cores)
  --sets <list>       instruction sets out of avx512bf16, avx512, avx2, neon, baseline; "all" for those that this processor runs (default: the widest)
  --precision <list>  out of float32, bfloat16, those that a set multiplies (default float32)
  --time <ms>         how long to measure a task (default 1000)
  --json <file>       write the figures to a file as well
  --compare <file>    print ratios to the figures of such a file
  --help              print this

  effective  GFLOP/s counting what five plain iterations take, 5·(4·m²·n + 2·m³) with m ≤ n, however few are done
  executed   GFLOP/s counting what is done: the form that the addon chose, symmetric products by halves
  peak       executed over what that many cores reach in registers alone, measured first; of bfloat16's Gram form, which multiplies squares in
             float32, the time that each part would take at its own peak over the time taken
  step       a ROOT step
  products   what the products of a ROOT step take, timed one by one within it; "over" is that step over them, median of all steps
  speedup    of the step, over that on the number of threads that is named first; median of the ratios of all rounds
  quantile   the share of a step that the threshold takes (against Muon's); median of all rounds
  memory     state and scratch after a step, in matrices of that shape`;

interface Row {
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
  memoryMatrices: number;
}

interface Report {
  date: string;
  processor: string;
  node: string;
  /** By set and precision. */
  peakGflops: Record<string, Partial<Record<Precision, number>>>;
  rows: Row[];
  /** A step on 64 matrices of 128 × 128 against 64 steps on one each: how many times faster. */
  manySmall: { set: string; precision: Precision; threads: number; ratio: number }[];
}

interface Work {
  shapes: [number, number][];
  threads: number[];
  precisions: Precision[];
  time: number;
}

async function main(): Promise<void> {
  const text = { type: 'string' } as const;
  const { values } = parseArgs({
    options: {
      shapes: text,
      threads: text,
      sets: text,
      precision: text,
      time: text,
      json: text,
      compare: text,
      worker: text,
      help: { type: 'boolean' },
    },
  });
  if (values.help) {
    console.log(HELP);
    return;
  }
  if (values.worker !== undefined) {
    console.log(JSON.stringify(await measureAll(JSON.parse(values.worker) as Work)));
    return;
  }

  const { cpu } = devices();
  const work: Work = {
    shapes: (values.shapes ?? SHAPES).split(',').map(parseShape),
    threads:
      values.threads === undefined
        ? [...new Set([1, cpu.physicalCores])]
        : values.threads.split(',').map((one) => positive(one, '--threads')),
    precisions: (values.precision ?? 'float32').split(',').map(parsePrecision),
    time: positive(values.time ?? '1000', '--time'),
  };
  const before =
    values.compare === undefined ? undefined : (JSON.parse(readFileSync(values.compare, 'utf8')) as Report);
  const report: Report = {
    date: new Date().toISOString(),
    processor: cpu.description,
    node: process.version,
    peakGflops: {},
    rows: [],
    manySmall: [],
  };
  for (const set of chooseSets(values.sets, cpu.instructionSet)) {
    const part = measureSet(set, work);
    if (part === undefined) continue;
    report.rows.push(...part.rows);
    report.manySmall.push(...part.manySmall);
    Object.assign(report.peakGflops, part.peakGflops);
    print(set, report, before);
  }
  if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify(report, null, 2)}\n`);
}

function parseShape(text: string): [number, number] {
  const [, rows, columns] = /^([1-9]\d*)x([1-9]\d*)$/.exec(text.trim()) ?? [];
  if (rows === undefined || columns === undefined) throw new Error(`Expected a shape such as 256x1024, got "${text}"`);
  return [Number(rows), Number(columns)];
}

function positive(text: string, name: string): number {
  if (!/^[1-9]\d*$/.test(text)) throw new Error(`Expected ${name} to be a positive whole number, got "${text}"`);
  return Number(text);
}

function parsePrecision(text: string): Precision {
  if (text !== 'float32' && text !== 'bfloat16')
    throw new Error(`Expected --precision to name some of float32, bfloat16, got "${text}"`);
  return text;
}

const SETS = ['avx512bf16', 'avx512', 'avx2', 'neon', 'baseline'];

function chooseSets(asked: string | undefined, widest: string): string[] {
  if (asked === undefined) return [widest];
  const sets = asked === 'all' ? SETS : asked.split(',');
  for (const set of sets)
    if (!SETS.includes(set)) throw new Error(`Expected --sets to name some of ${SETS.join(', ')}, got "${set}"`);
  return sets;
}

/** In a process of its own: the addon chooses its kernels once. Undefined where the processor lacks the set. */
function measureSet(set: string, work: Work): Report | undefined {
  const env = { ...process.env, ROOT_OPTIMIZER_INSTRUCTION_SET: set };
  const args = [...process.execArgv, __filename, '--worker', JSON.stringify(work)];
  const { status, stdout, stderr } = spawnSync(process.execPath, args, { env, encoding: 'utf8' });
  if (status === 0) return JSON.parse(stdout) as Report;
  if (!stderr.includes('ROOT_OPTIMIZER_INSTRUCTION_SET')) throw new Error(stderr);
  console.log(`${set}: not on this processor\n`);
  return undefined;
}

async function measureAll({ shapes, threads, precisions, time }: Work): Promise<Partial<Report>> {
  const { instructionSet: set, precisions: possible } = devices().cpu;
  const peaks = Object.fromEntries(possible.map((precision) => [precision, addon().cpuPeak(precision) / 1e9]));
  const rows: Row[] = [];
  const manySmall: Report['manySmall'] = [];
  for (const precision of precisions.filter((one) => peaks[one] !== undefined)) {
    for (const shape of shapes)
      rows.push(...(await measureShape(shape, threads, precision, time, peaks)).map((row) => ({ set, ...row })));
    for (const count of threads)
      manySmall.push({ set, precision, threads: count, ratio: await measureManySmall(count, precision, time) });
  }
  return { rows, manySmall, peakGflops: { [set]: peaks } };
}

async function measureShape(
  shape: [number, number],
  threads: number[],
  precision: Precision,
  time: number,
  peaks: Record<string, number>,
): Promise<Omit<Row, 'set'>[]> {
  const size = shape[0] * shape[1];
  const [m, n] = [Math.min(...shape), Math.max(...shape)];
  const contestants = threads.map((count) => contestant(shape, count, precision));
  const rounds = await inTurns(
    time,
    contestants.flatMap(({ tasks }) => tasks),
  );
  const memory = contestants.map(({ root }) => root.memoryBytes);
  for (const { root, muon, profiled } of contestants) {
    for (const optimizer of [root, muon, profiled]) optimizer.dispose();
  }

  const plan = addon().newtonSchulzPlan('cpu', precision, m, n, coefficientsOf(shape));
  const leastMs = ((plan.flops - plan.float32Flops) / peaks[precision]! + plan.float32Flops / peaks['float32']!) / 1e6;
  const { physicalCores } = devices().cpu;
  const turns = rounds.map((round) => threads.map((_, i) => turnOf(round.slice(i * TASKS, (i + 1) * TASKS))));
  return threads.map((count, i) => {
    const typical = (figure: (turn: Turn, first: Turn) => number) =>
      median(turns.map((turn) => figure(turn[i]!, turn[0]!)));
    const orthogonalizeMs = typical((turn) => turn.orthogonalizeMs);
    const { products } = contestants[i]!;
    return {
      precision,
      shape: shape.join('x'),
      threads: count,
      form: plan.form === 'gram' ? `gram ${plan.legs.join('+')}` : plan.form,
      orthogonalizeMs,
      effective: (5 * (4 * m * m * n + 2 * m ** 3)) / orthogonalizeMs / 1e6,
      executed: plan.flops / orthogonalizeMs / 1e6,
      peakShare: leastMs / orthogonalizeMs / Math.min(count, physicalCores),
      stepMs: typical((turn) => turn.stepMs),
      productsMs: median(products.map(({ ms }) => ms)),
      overProducts: median(products.map(({ ms, stepMs }) => stepMs / ms)),
      speedup: typical((turn, first) => first.stepMs / turn.stepMs),
      quantileShare: typical((turn) => 1 - turn.muonMs / turn.stepMs),
      memoryMatrices: memory[i]! / (4 * size),
    };
  });
}

const TASKS = 4;

interface Turn {
  orthogonalizeMs: number;
  stepMs: number;
  muonMs: number;
}

function turnOf([orthogonalizeMs, stepMs, muonMs]: number[]): Turn {
  return { orthogonalizeMs: orthogonalizeMs!, stepMs: stepMs!, muonMs: muonMs! };
}

const coefficientsOf = (shape: [number, number]) => Float64Array.from(newtonSchulzCoefficients(shape).flat());

interface Contestant {
  /** As many as TASKS, in the order of `turnOf`; the last one is a step that fills `products`. */
  tasks: (() => unknown)[];
  products: { ms: number; stepMs: number }[];
  root: Root;
  muon: Muon;
  profiled: Optimizer;
}

function contestant(shape: [number, number], threads: number, precision: Precision): Contestant {
  const size = shape[0] * shape[1];
  const x = gaussian(size);
  const out = new Float32Array(size);
  const parameters = [1, 2].map(
    (i) => new Parameter({ name: `w${i}`, shape, data: gaussian(size), grad: gaussian(size) }),
  );
  const root = new Root([parameters[0]!], { lr: 1e-3, threads, precision, device: 'cpu' });
  const muon = new Muon([parameters[1]!], { lr: 1e-3, threads, precision, device: 'cpu' });
  const [rows, columns] = shape;
  const profiled = new (addon().Optimizer)(
    'cpu',
    threads,
    precision,
    [{ size, matrices: [{ offset: 0, rows, columns }] }],
    true,
  );
  const [data, grad] = [gaussian(size), gaussian(size)];
  const matrices = [{ updateScale: 1, coefficients: coefficientsOf(shape) }];
  const settings = {
    lr: 1e-3,
    momentum: 0.95,
    nesterov: true,
    weightDecay: 0,
    threshold: { quantile: 0.9, scale: 1 },
    matrices,
  };
  const products: Contestant['products'] = [];
  const tasks = [
    () => orthogonalizeSync(x, shape, { threads, precision, device: 'cpu', out }),
    () => root.stepSync(),
    () => muon.stepSync(),
    () => {
      const start = performance.now();
      profiled.stepSync([data], [grad], [settings]);
      products.push({ stepMs: performance.now() - start, ms: 1000 * profiled.stepTimes.products });
    },
  ];
  return { tasks, products, root, muon, profiled };
}

async function measureManySmall(threads: number, precision: Precision, time: number): Promise<number> {
  const shape = [128, 128];
  const parameters = Array.from(
    { length: 128 },
    (_, i) => new Parameter({ name: `w${i}`, shape, grad: gaussian(128 * 128) }),
  );
  const options = { threads, precision, device: 'cpu' } as const;
  const together = new Root(parameters.slice(0, 64), options);
  const apart = parameters.slice(64).map((one) => new Root([one], options));
  const rounds = await inTurns(time, [
    () => together.stepSync(),
    () => apart.forEach((optimizer) => optimizer.stepSync()),
  ]);
  for (const optimizer of [together, ...apart]) optimizer.dispose();
  return median(rounds.map(([one, many]) => many! / one!));
}

/**
 * Median milliseconds of each task in each of several rounds. They take turns, so that what else the machine does meets all of them; a call before each
 * turn, which finds caches and threads as another task has left them, does not count.
 */
async function inTurns(time: number, tasks: (() => unknown)[]): Promise<number[][]> {
  const rounds: number[][] = [];
  for (let round = 0; round < 7; round++) {
    const bench = new Bench({ time: time / 7, iterations: 2, warmup: false, retainSamples: true, throws: true });
    tasks.forEach((task, i) => bench.add(String(i), task, { beforeAll: () => void task() }));
    const results = (await bench.run()).map(({ result }) =>
      result.state === 'completed' ? (result.latency.samples ?? []) : [],
    );
    rounds.push(results.map((samples) => median(samples)));
  }
  return rounds;
}

function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[values.length >> 1]!;
}

/** Standard normal values: of zeros the processor makes short work. */
function gaussian(size: number): Float32Array {
  return Float32Array.from(
    { length: size },
    () => Math.sqrt(-2 * Math.log(1 - Math.random())) * Math.cos(2 * Math.PI * Math.random()),
  );
}

function print(set: string, report: Report, before: Report | undefined): void {
  const peaks = Object.entries(report.peakGflops[set]!).map(
    ([precision, peak]) => `${peak.toFixed(0)} GFLOP/s (${precision})`,
  );
  console.log(`${report.processor}, ${set}, ${peaks.join(' and ')} peak a core, Node ${report.node}\n`);
  const head = [
    'precision',
    'shape',
    'threads',
    'form',
    'orthogonalise',
    'effective',
    'executed',
    'peak',
    'step',
    'products',
    'over',
    'speedup',
    'quantile',
    'memory',
  ];
  const compared = before === undefined ? [] : ['before/now', 'step'];
  const lines = report.rows
    .filter((row) => row.set === set)
    .map((row) => {
      const old = before?.rows.find(
        (one) =>
          one.set === row.set &&
          one.precision === row.precision &&
          one.shape === row.shape &&
          one.threads === row.threads,
      );
      const ratios =
        old === undefined
          ? ['', '']
          : [old.orthogonalizeMs / row.orthogonalizeMs, old.stepMs / row.stepMs].map((one) => one.toFixed(2));
      return [
        row.precision,
        row.shape,
        String(row.threads),
        row.form,
        `${row.orthogonalizeMs.toFixed(2)} ms`,
        row.effective.toFixed(0),
        row.executed.toFixed(0),
        percent(row.peakShare),
        `${row.stepMs.toFixed(2)} ms`,
        `${row.productsMs.toFixed(2)} ms`,
        row.overProducts.toFixed(2),
        row.speedup.toFixed(2),
        percent(row.quantileShare),
        row.memoryMatrices.toFixed(1),
        ...ratios.slice(0, compared.length),
      ];
    });
  const table = [[...head, ...compared], ...lines];
  const widths = table[0]!.map((_, i) => Math.max(...table.map((line) => line[i]!.length)));
  for (const line of table)
    console.log(line.map((cell, i) => (i === 3 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!))).join('  '));
  for (const { set: of, precision, threads, ratio } of report.manySmall) {
    if (of === set)
      console.log(
        `\n64 matrices of 128x128, ${precision}, ${threads} threads: one step is ${ratio.toFixed(2)} times as fast as a step for each`,
      );
  }
  console.log();
}

function percent(share: number): string {
  return `${(100 * share).toFixed(1)} %`;
}

main().catch((error: unknown) => {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 1;
});
