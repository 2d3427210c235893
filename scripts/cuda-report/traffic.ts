// What a step launches and moves, as the emulator counts it, and a model of the time that this takes.
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { addon } from '../../lib/binding.js';
import { newtonSchulzCoefficients } from '../../lib/index.js';
import { plainFlops } from '../common/numbers.js';
import { markdownHead, markdownRow } from '../common/tables.js';
import type { Launch, optimizers, Report, Steps } from './steps.js';

const root = join(__dirname, '..', '..');

type Name = keyof typeof optimizers;
const shown = ['Muon', 'ROOT of the paper', 'ROOT'] as const satisfies readonly Name[];

/** The most launches besides products, and the most bytes that passes over all elements move, each a parameter. */
const goals = { launches: { Muon: 12, 'ROOT of the paper': 12, ROOT: 18 }, bytes: { Muon: 30, ROOT: 34 } } as const;
/** How far blocks' tables, sectors that two blocks share, and candidates may raise a count of bytes. */
const SLACK = 1.03;

/** TFLOP/s of products, ours and PyTorch's batched ones, and TB/s of memory. */
export const cards = {
  H100: { ours: 740, theirs: 700, memory: 3 },
  H200: { ours: 740, theirs: 700, memory: 4.3 },
  A100: { ours: 230, theirs: 250, memory: 1.7 },
  'RTX 4090': { ours: 140, theirs: 150, memory: 0.9 },
} as const;
const LAUNCH = 2e-6; // seconds, in a graph
const SCRATCH = 2 ** 30; // bytes of a job, from cuda/backend.cu

/**
 * Bytes a parameter that torch.optim.Muon moves besides its products: momentum 12, look-ahead 12, its cast to bfloat16
 * 6, norm 2, division 4, decay 8, update 10. A ROOT step adds two selections of the size of a pass over |U| that is
 * written and read four times (8 + 16 each), and the clamp (8).
 */
const theirBytes = { Muon: 54, ROOT: 54 + 2 * 24 + 8 };

/** 16 layers of four 2048 × 2048 and three 2048 × 8192 matrices; AdamW has an embedding of 32000 × 2048. */
const large = { matrices: [[2048, 2048, 64] as const, [2048, 8192, 48] as const], moments: 32_000 * 2048 };

/** Prints the tables. Returns the goals that are missed. */
export async function printTraffic(): Promise<string[]> {
  const report = await takeSteps();
  console.log('\n### Launches and bytes of a step, as the emulator counts them\n');
  const faults = printCounts(report);
  console.log('\n### Time of a step of 1.14 G parameters, by count\n');
  return [...faults, ...printTimes(report)];
}

async function takeSteps(): Promise<Report> {
  const run = promisify(execFile);
  const built = await run('node', ['scripts/build-emulator.mjs', '--traffic'], { cwd: root });
  const environment = {
    ...process.env,
    ROOT_OPTIMIZER_ADDON: built.stdout.trim(),
    EMULATOR_TRAFFIC: join(root, 'build', 'Emulator', 'traffic.jsonl'),
  };
  const steps = await run('node', ['--import', 'tsx', 'scripts/cuda-report/steps.ts'], { cwd: root, env: environment });
  return JSON.parse(steps.stdout) as Report;
}

const isProduct = ({ kernel }: Launch) => /^(gemm|add_|newton_schulz)/.test(kernel);

/** Bytes a parameter of what a step does, on the first step or a later one. */
function bytesOf(steps: Steps, still: Steps, when: 'first' | 'later') {
  const launches = steps[when].filter((one) => !isProduct(one));
  const gradient = launches.findIndex(({ kernel }) => kernel === 'note_gradient_clips') + 1;
  const sum = (list: readonly Launch[], kernels?: RegExp) =>
    list.filter(({ kernel }) => kernels?.test(kernel) ?? true).reduce((all, one) => all + one.reads + one.writes, 0);
  const [searched, rest] = [launches.slice(0, gradient), launches.slice(gradient)];
  const { elements, moments } = steps;
  const products = (list: readonly Launch[]) => sum(list.filter(isProduct));
  return {
    'scan of G for its threshold': sum(searched, /^scan/) / elements,
    'search for it': sum(searched, /^(?!scan)/) / elements,
    'check of G and M': sum(rest, /^scan/) / elements,
    'search for ε': sum(rest, /^(count|find|note|sum)/) / elements,
    'proximal pass': sum(rest, /^proximal/) / elements,
    // A product whose update would change nothing leaves θ alone.
    'update in the last product': (products(steps.later) - products(still.later)) / elements,
    AdamW: sum(rest, /^(check_moments|adamw)/) / moments,
  };
}

type Part = keyof ReturnType<typeof bytesOf>;
const searches: readonly Part[] = ['search for it', 'search for ε'];

function printCounts(report: Report): string[] {
  const faults: string[] = [];
  const still = report.large['Muon, lr 0'];
  const kinds = [
    ...shown.map((name) => ({ name, head: name, bytes: bytesOf(report.large[name], still, 'later') })),
    { name: 'ROOT' as const, head: 'ROOT, first step', bytes: bytesOf(report.large.ROOT, still, 'first') },
  ];
  console.log(markdownHead(['bytes a parameter', ...kinds.map(({ head }) => head)]));
  const parts = Object.keys(kinds[0]!.bytes) as Part[];
  for (const part of parts) console.log(markdownRow([part, ...kinds.map(({ bytes }) => bytes[part].toFixed(1))]));
  const launches = kinds.map(({ name }) => report.gpt[name].later.filter((one) => !isProduct(one)).length);
  console.log(markdownRow(['launches besides products, GPT-2', ...launches.map(String)]));

  for (const [i, { name, head, bytes }] of kinds.entries()) {
    if (launches[i]! > goals.launches[name]) faults.push(`${name}: ${launches[i]} launches of ${goals.launches[name]}`);
    if (name === 'ROOT of the paper' || head !== name) continue;
    const passes = parts.filter((part) => part !== 'AdamW' && !searches.includes(part));
    const total = passes.reduce((sum, part) => sum + bytes[part], 0);
    if (total > goals.bytes[name] * SLACK) faults.push(`${name}: ${total.toFixed(1)} bytes of ${goals.bytes[name]}`);
  }
  return faults;
}

/** Prints milliseconds of a step. Returns the goals that are missed: 1.25 times as fast as PyTorch, ROOT 1.6 times. */
function printTimes(report: Report): string[] {
  const faults: string[] = [];
  console.log(markdownHead(['step', ...Object.keys(cards).flatMap((card) => [`${card}, ms`, 'PyTorch', '×'])]));
  for (const name of ['Muon', 'ROOT'] as const) {
    const cells = Object.entries(cards).flatMap(([card, speed]) => {
      const [own, other] = [ours(report, name, speed), theirs(name, speed)];
      const goal = name === 'Muon' ? 1.25 : 1.6;
      if (other / own < goal) faults.push(`${name} on ${card}: ${(other / own).toFixed(2)} of ${goal}`);
      return [(own * 1e3).toFixed(0), (other * 1e3).toFixed(0), (other / own).toFixed(2)];
    });
    console.log(markdownRow([name, ...cells]));
  }
  return faults;
}

interface Speed {
  readonly ours: number;
  readonly theirs: number;
  readonly memory: number;
}

const elements = large.matrices.reduce((sum, [m, n, count]) => sum + m * n * count, 0);

function ours(report: Report, name: 'Muon' | 'ROOT', { ours: rate, memory }: Speed): number {
  const plans = large.matrices.map(([m, n, count]) => {
    const coefficients = Float64Array.from(newtonSchulzCoefficients([m, n]).flat());
    return addon().newtonSchulzPlan('cuda:0', 'float16', true, m, n, coefficients).flops * count;
  });
  const flops = plans.reduce((a, b) => a + b);
  const { AdamW: ofMoments, ...parts } = bytesOf(report.large[name], report.large['Muon, lr 0'], 'later');
  // The counted matrices have one part in their only leg. These have two.
  const ofMatrices = Object.values(parts).reduce((a, b) => a + b) + 2;
  // X and the next X have at most four bytes a parameter each.
  const jobs = Math.ceil((8 * elements) / SCRATCH);
  const launches = report.gpt[name].later.length;
  const bytes = ofMatrices * elements + ofMoments * large.moments;
  return flops / rate / 1e12 + bytes / memory / 1e12 + jobs * launches * LAUNCH;
}

function theirs(name: 'Muon' | 'ROOT', { theirs: rate, memory }: Speed): number {
  const flops = large.matrices.reduce((sum, [m, n, count]) => sum + plainFlops(m, n) * count, 0);
  const ofMoments = 28; // θ, both moments: read and written; G: read
  return flops / rate / 1e12 + (theirBytes[name] * elements + ofMoments * large.moments) / memory / 1e12;
}
