import { spawnSync } from 'node:child_process';
import { appendFileSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { init, lax, numpy as np } from '@jax-js/jax';
import { judge } from '../../scripts/experiments/one.js';
import { keyOf, planRuns, type Result, type Spec, sweepSeed } from '../../scripts/experiments/plan.js';
import { readResults, Runner } from '../../scripts/experiments/runner.js';
import { sweep } from '../../scripts/experiments/sweep.js';
import { markdownTables } from '../../scripts/experiments/table.js';
import { makeRandom } from '../../scripts/common/random.js';
import { ConvNet, patches } from '../../scripts/train/convnet.js';
import { allDigits, digitBatches, type Digits, loadDigits } from '../../scripts/train/digits.js';
import { gaussian, relativeError } from '../support.js';

const root = path.join(__dirname, '..', '..');

jest.setTimeout(30_000);

describe('digits', () => {
  let digits: ReturnType<typeof loadDigits>;
  beforeAll(() => {
    digits = loadDigits();
  });

  test('are 10,000, of which a fifth of each is held out', () => {
    const { training, validation } = digits;
    expect([training.count, validation.count]).toEqual([7996, 2004]);
    const share = (set: Digits, digit: number): number => set.targets.filter((target) => target === digit).length;
    for (let digit = 0; digit < 10; digit++) {
      expect(share(validation, digit) / (share(training, digit) + share(validation, digit))).toBeCloseTo(0.2, 2);
    }
    const { images } = training;
    expect(images.length).toBe(7996 * 196);
    expect([images.reduce((a, b) => Math.min(a, b)), images.reduce((a, b) => Math.max(a, b))]).toEqual([0, 1]);
  });

  test('come in batches', () => {
    const take = (seed: number) => digitBatches(digits.training, 50, makeRandom(seed, 'batches')).next().value;
    expect(take(1)).toEqual(take(1));
    expect(take(1)).not.toEqual(take(2));
    const batches = allDigits(digits.validation, 100);
    expect(batches.map(({ rows }) => rows)).toEqual([...Array<number>(20).fill(100), 4]);
    expect(batches.flatMap(({ targets }) => [...targets])).toEqual([...digits.validation.targets]);
    expect(batches[1]!.inputs).toEqual(digits.validation.images.slice(100 * 196, 200 * 196));
  });
});

describe('the convolutional network', () => {
  const batch = {
    rows: 4,
    inputs: gaussian(4 * 196, 1).map(Math.abs),
    targets: Int32Array.of(3, 1, 4, 9),
  };
  let model: ConvNet;
  beforeAll(async () => {
    model = await ConvNet.create();
    model.initialize(makeRandom(1, 'weights'));
  });
  afterAll(() => model.dispose());

  test.each([
    [14, 5, 2, 1],
    [7, 3, 1, 4],
  ])('reads the same patches as a convolution: %p', async (side, kernel, padding, channels) => {
    await init('wasm');
    const [image, weight] = [gaussian(2 * side * side * channels, 2), gaussian(6 * kernel * kernel * channels, 3)];
    const x = np.array(image).reshape([2, side, side, channels]);
    const w = np.array(weight).reshape([6, kernel, kernel, channels]);
    const margin: [number, number] = [padding, padding];
    const convolved = lax.conv(
      np.transpose(x.ref, [0, 3, 1, 2]),
      np.transpose(w.ref, [0, 3, 1, 2]),
      [2, 2],
      [margin, margin],
    );
    const product = np.matmul(patches(x, kernel, padding), w.reshape([6, -1]).transpose());
    const wanted = (await np.transpose(convolved, [0, 2, 3, 1]).data()) as Float32Array;
    expect(relativeError((await product.data()) as Float32Array, wanted)).toBeLessThan(1e-5);
  });

  test('has gradients that agree with finite differences', async () => {
    // A head of usual size carries the differences above rounding.
    const head = model.parameters.find(({ name }) => name === 'head')!;
    head.data.set(gaussian(head.size, 4).map((value) => value / 8));
    await model.lossAndGradients(batch);
    const loss = async (): Promise<number> => judge(await model.logits(batch), batch.targets).loss / batch.rows;
    expect(await model.lossAndGradients(batch)).toBeCloseTo(await loss(), 5);
    for (const { name, data, grad } of model.parameters) {
      const [before, scale] = [data.slice(), Math.sqrt(grad.reduce((sum, value) => sum + value * value, 0))];
      const h = 1e-3;
      const at = async (step: number): Promise<number> => {
        before.forEach((value, i) => (data[i] = value + (step * grad[i]!) / scale));
        return loss();
      };
      const slope = ((await at(h)) - (await at(-h))) / (2 * h);
      data.set(before);
      expect({ name, error: Math.abs(slope / scale - 1) < 0.03 }).toEqual({ name, error: true });
    }
  });

  test('begins at the loss of guessing, and is judged', async () => {
    model.initialize(makeRandom(1, 'weights'));
    const { loss } = judge(await model.logits(batch), batch.targets);
    expect(loss / batch.rows).toBeCloseTo(Math.log(10), 0);
    expect(model.hidden.map(({ name, shape }) => [name, ...shape])).toEqual([
      ['convolution.0', 16, 25],
      ['convolution.1', 32, 144],
      ['dense', 64, 512],
    ]);
    const judged = judge(Float32Array.of(0, Math.log(3), 0, 0), Int32Array.of(1, 1));
    expect(judged.loss).toBeCloseTo(Math.log(4 / 3) + Math.log(2), 6);
    expect(judged.right).toBe(1);
  });
});

describe('the runner', () => {
  let folder: string;
  beforeEach(() => {
    folder = mkdtempSync(path.join(tmpdir(), 'root-optimizer-experiments-'));
  });
  afterEach(() => rmSync(folder, { recursive: true, force: true }));
  const plan = planRuns('mnist', [{ method: 'muon', lr: 0.01 }], { noises: ['none', 'burst'], seeds: 3, steps: 5 });

  test('goes seed by seed', () => {
    expect(plan.map(({ seed, noise }) => `${seed} ${noise}`)).toEqual(
      [1, 2, 3].flatMap((seed) => ['none', 'burst'].map((noise) => `${seed} ${noise}`)),
    );
    expect(new Set(plan.map(keyOf)).size).toBe(6);
  });

  test('goes on where it stopped, with no more jobs at a time than it may have', async () => {
    const file = path.join(folder, 'inner', 'results.jsonl');
    let [running, most] = [0, 0];
    const trained: string[] = [];
    const run = async ({ seed, noise }: Spec) => {
      trained.push(`${seed} ${noise}`);
      most = Math.max(most, ++running);
      await new Promise((resolve) => setTimeout(resolve, 5));
      running--;
      return { loss: seed, accuracy: null };
    };
    const make = (): Runner => new Runner(file, 2, run, () => undefined);
    await make().runAll(plan.slice(0, 3));
    expect(most).toBe(2);
    appendFileSync(file, '{"model":"mnist","meth');
    expect(readResults(file)).toHaveLength(3);
    const results = await make().runAll([...plan, plan[0]!]);
    expect(results.map(({ loss }) => loss)).toEqual([1, 1, 2, 2, 3, 3, 1]);
    expect(trained).toHaveLength(6);
    expect(new Set(readResults(file).map(keyOf))).toEqual(new Set(plan.map(keyOf)));
    expect(readFileSync(file, 'utf8')).not.toContain('"meth{');
  });

  test('begins nothing after a failure', async () => {
    const trained: number[] = [];
    const failing = async ({ seed }: Spec) => {
      trained.push(seed);
      await Promise.resolve();
      throw new Error('no memory');
    };
    const runner = new Runner(path.join(folder, 'results.jsonl'), 1, failing, () => undefined);
    await expect(runner.runAll(plan)).rejects.toThrow('no memory');
    expect(trained).toEqual([1]);
  });

  test('trains in a child process', () => {
    const spec: Spec = { model: 'mnist', method: 'muon', noise: 'labels', seed: 1, lr: 0.01, steps: 2 };
    const args = ['--import', 'tsx', 'scripts/experiments.ts', 'one', '--spec', JSON.stringify(spec)];
    const { stdout, stderr, status } = spawnSync(process.execPath, args, { cwd: root, encoding: 'utf8' });
    expect({ stderr, status }).toEqual({ stderr: '', status: 0 });
    const { loss, accuracy } = JSON.parse(stdout) as { loss: number; accuracy: number };
    expect(loss).toBeGreaterThan(0);
    expect(loss).toBeLessThan(4);
    expect(accuracy).toBeLessThan(1);
  });
});

describe('the sweep', () => {
  const task = { model: 'gpt', method: 'root', steps: 5 } as const;

  test('takes the best rate on clean gradients of a seed of its own', async () => {
    const specs: Spec[] = [];
    const choice = await sweep(task, async (spec) => {
      specs.push(spec);
      return Promise.resolve({ loss: Math.abs(Math.log(spec.lr / 0.015)) });
    });
    expect(choice.lr).toBe(0.014);
    expect(Object.keys(choice.losses)).toEqual(['0.005', '0.0071', '0.01', '0.014', '0.02']);
    for (const { seed, noise } of specs) expect({ seed, noise }).toEqual({ seed: sweepSeed, noise: 'none' });
  });

  test('widens the grid until the best rate lies inside', async () => {
    const above = async ({ lr }: Spec) => Promise.resolve({ loss: Math.abs(Math.log(lr / 0.04)) });
    expect((await sweep(task, above)).losses).toHaveProperty(['0.057']);
    expect((await sweep(task, above)).lr).toBe(0.04);
    const below = async ({ lr }: Spec) => Promise.resolve({ loss: lr > 0.004 ? null : Math.abs(Math.log(lr / 0.003)) });
    expect((await sweep(task, below)).lr).toBe(0.0035);
    const never = async () => Promise.resolve({ loss: null });
    await expect(sweep(task, never)).rejects.toThrow('Found no learning rate for gpt root');
  });
});

test('tables are means and deviations of the seeds in Markdown', () => {
  const result = (change: Partial<Result>): Result => ({
    ...{ model: 'gpt', method: 'muon', noise: 'none', seed: 1, lr: 0.01, steps: 200 },
    ...{ loss: 2, accuracy: null, seconds: 1, date: '2026-11-26' },
    ...change,
  });
  const seeds = (change: Partial<Result>, ...losses: (number | null)[]): Result[] =>
    losses.map((loss, i) => result({ ...change, seed: i + 1, loss }));
  const results = [
    ...seeds({}, 1.9, 2, 2.1),
    ...seeds({ method: 'root', lr: 0.014 }, 1.8, 1.8, 1.8),
    ...seeds({ noise: 'burst' }, 2, null, 3),
    ...seeds({ method: 'root', lr: 0.014, noise: 'burst' }, 2, 2.5),
    ...seeds({ method: 'adamw', lr: 0.004 }, 2.5),
    result({ seed: sweepSeed, loss: 1 }),
    result({ model: 'mnist', loss: 0.1234, accuracy: 0.9876 }),
  ];
  expect(markdownTables(results)).toBe(`gpt, 200 steps: validation loss in nats

| optimizer | learning rate | clean | burst |
|---|---|---|---|
| AdamW | 0.004 | 2.500 (1 of 3) | – |
| Muon | 0.01 | 2.000 ± 0.100 | not finite (1 of 3) |
| ROOT | 0.014 | **1.800** ± 0.000 | **2.250** ± 0.354 (2 of 3) |

mnist, 200 steps: validation loss in nats

| optimizer | learning rate | clean |
|---|---|---|
| Muon | 0.01 | **0.123** |

mnist, 200 steps: validation accuracy in %

| optimizer | learning rate | clean |
|---|---|---|
| Muon | 0.01 | **98.76** |`);
  expect(markdownTables([])).toBe('');
});

describe('the command line', () => {
  const run = (...args: string[]) =>
    spawnSync(process.execPath, ['--import', 'tsx', 'scripts/experiments.ts', ...args], {
      cwd: root,
      encoding: 'utf8',
    });

  test.each([
    [['walk'], 'Expected the command to name some of sweep, run, table, one, got "walk"'],
    [
      ['run', '--rates', '/absent.json'],
      'Expected a learning rate of adamw for gpt in /absent.json; the command sweep',
    ],
    [['run', '--noises', 'loud'], 'Expected --noises to name some of none, spikes, burst, student, labels, got "loud"'],
  ])('%p is told in one line', (args, message) => {
    const { stderr, status } = run(...args);
    expect(status).toBe(1);
    expect(stderr.startsWith(message)).toBe(true);
    expect(stderr.trimEnd()).not.toContain('\n');
  });
});
