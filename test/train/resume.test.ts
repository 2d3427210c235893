import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import {
  AdamW,
  type Model,
  Muon,
  type Optimizer,
  Parameter,
  Root,
  type StepMetrics,
  train,
  type TrainOptions,
} from '../../lib/index.js';
import { bits, expectError, gaussian } from '../support.js';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'root-optimizer-resume-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

/** Regression of noisy targets: `batch` is a seed, so that the model's noise belongs to the batch. */
function regression(): Model<number> & { weight: Parameter } {
  const weight = new Parameter({ name: 'weight', shape: [6, 4], data: gaussian(24, 1) });
  const bias = new Parameter({ name: 'bias', shape: [4] });
  return {
    weight,
    parameters: [weight, bias],
    lossAndGradients(batch) {
      const noise = gaussian(28, batch);
      let loss = 0;
      for (const { data, grad } of [weight, bias]) {
        data.forEach((value, i) => {
          const error = value - 0.1 * i + noise[i]!;
          grad[i] = error;
          loss += error * error;
        });
      }
      return loss;
    },
  };
}

const optimizers: Record<string, (model: Model<number>) => Optimizer> = {
  Root: ({ parameters }) => new Root([...parameters], { lr: 0.05, normalize: 'rows' }),
  Muon: ({ parameters }) => new Muon([...parameters], { lr: 0.05 }),
  AdamW: ({ parameters }) => new AdamW([...parameters], { lr: 0.05 }),
};
const seeds = (from: number) => Array.from({ length: 100 - from }, (_, i) => from + i);
const total = 12;

interface Case {
  schedule?: TrainOptions<number>['schedule'];
  accumulation?: TrainOptions<number>['accumulation'];
  source: 'list' | 'generator' | 'asynchronous' | 'function';
}

function batchesOf({ source }: Case): TrainOptions<number>['batches'] {
  switch (source) {
    case 'list':
      return seeds(0);
    case 'generator':
      return (function* () {
        yield* seeds(0);
      })();
    case 'asynchronous':
      return (async function* () {
        for (const seed of seeds(0)) yield await Promise.resolve(seed);
      })();
    case 'function':
      return (_, batchesBefore) => seeds(batchesBefore);
  }
}

const cases: Case[] = [
  { source: 'list', schedule: 'cosine' },
  { source: 'generator', schedule: { kind: 'linear', warmup: 3, floor: 0.1 }, accumulation: 3 },
  { source: 'asynchronous', schedule: (step) => 1 / step },
  { source: 'function', schedule: 'constant', accumulation: 2 },
  { source: 'function' },
  { source: 'function', schedule: 'cosine', accumulation: { test: 'norm', theta: 1, max: 7 } },
  { source: 'list', accumulation: { test: 'norm', theta: 0.6, start: 3, max: 8 } },
];

describe.each(Object.entries(optimizers))('%s', (_, makeOptimizer) => {
  test.each(cases)('an interrupted training gives the same bits: %j', async (one) => {
    const run = async (stopAfter: number | undefined, resume: boolean) => {
      const model = regression();
      const optimizer = makeOptimizer(model);
      const controller = new AbortController();
      const evaluations: number[] = [];
      const { history, ended } = await train({
        ...{ model, optimizer, steps: total, batches: batchesOf(one), resume, signal: controller.signal },
        ...(one.schedule === undefined ? {} : { schedule: one.schedule }),
        ...(one.accumulation === undefined ? {} : { accumulation: one.accumulation }),
        checkpoint: {
          path: path.join(folder, resume || stopAfter !== undefined ? 'a.safetensors' : 'b.safetensors'),
          every: 4,
        },
        evaluate: { every: 2, run: () => evaluations.push(model.weight.data[0]!) },
        onStep: ({ step }) => {
          if (step === stopAfter) controller.abort();
        },
      });
      expect(optimizer.paramGroups[0]!.lr).toBe(0.05);
      const state = model.parameters.map((parameter) => JSON.stringify(optimizer.stateOf(parameter)));
      return { history, ended, bits: [...model.parameters.map(({ data }) => bits(data)), ...state] };
    };
    const whole = await run(undefined, true);
    rmSync(path.join(folder, 'a.safetensors'));
    const first = await run(5, false);
    expect(first.ended).toBe('signal');
    const second = await run(7, true);
    const third = await run(undefined, true);
    expect(third.bits).toEqual(whole.bits);
    const lines = [...first.history, ...second.history, ...third.history];
    const told = (history: readonly StepMetrics[]) => history.map(({ step, loss, lr }) => ({ step, loss, lr }));
    expect(told(lines)).toEqual(told(whole.history));
  });
});

function start(options: Partial<TrainOptions<number>> = {}): TrainOptions<number> & { model: Model<number> } {
  const model = regression();
  return { model, optimizer: optimizers['Root']!(model), steps: total, batches: seeds(0), ...options };
}

test('a finished training has nothing left to do', async () => {
  const checkpoint = { path: path.join(folder, 'run.safetensors'), every: 5 };
  await train(start({ checkpoint }));
  const batches = jest.fn(() => []);
  expect(await train(start({ checkpoint, resume: true, batches }))).toEqual({ steps: 0, ended: 'steps', history: [] });
  expect(await train(start({ resume: checkpoint.path, steps: total + 2 }))).toMatchObject({ steps: 2 });
});

test('older checkpoints are kept under their steps', async () => {
  const file = path.join(folder, 'run.safetensors');
  await train(start({ checkpoint: { path: file, every: 2, keep: 3 } }));
  expect(readdirSync(folder).sort()).toEqual(['run.safetensors', 'run.safetensors.step-10', 'run.safetensors.step-8']);
  const again = await train(start({ resume: `${file}.step-8`, checkpoint: { path: file, every: 3, keep: 1 } }));
  expect(again.history.map(({ step }) => step)).toEqual([9, 10, 11, 12]);
  expect(readdirSync(folder)).toEqual(['run.safetensors']);
});

test('files that another training left stay', async () => {
  const file = path.join(folder, 'run.safetensors');
  await train(start({ checkpoint: { path: file, every: 2, keep: 3 } }));
  const left = readFileSync(`${file}.step-10`);
  await train(start({ steps: 6, checkpoint: { path: file, every: 2, keep: 3 } }));
  const names = ['', '.step-10', '.step-12', '.step-2', '.step-4', '.step-8'].map((end) => `run.safetensors${end}`);
  expect(readdirSync(folder).sort()).toEqual(names);
  expect(readFileSync(`${file}.step-10`).equals(left)).toBe(true);
  // So does the file in the place of the checkpoint, under its own step.
  const other = path.join(folder, 'other.safetensors');
  await train(start({ steps: 3, checkpoint: { path: other, every: 1 } }));
  await train(start({ resume: file, steps: 7, checkpoint: { path: other, every: 1, keep: 2 } }));
  const others = readdirSync(folder).filter((name) => name.startsWith('other'));
  expect(others.sort()).toEqual(['other.safetensors', 'other.safetensors.step-3']);
});

test('a checkpoint that cannot be read or is not of train is refused, and nothing has changed', async () => {
  const file = path.join(folder, 'run.safetensors');
  await expectError(() => train(start({ resume: file })), 'ERR_CHECKPOINT', 'run.safetensors');
  const checkpoint = { path: file, every: 5 };
  writeFileSync(file, 'no checkpoint');
  const options = start({ resume: true, checkpoint });
  const before = bits(options.model.parameters[0]!.data);
  await expectError(() => train(options), 'ERR_CHECKPOINT', 'run.safetensors');
  expect(bits(options.model.parameters[0]!.data)).toBe(before);
  await options.optimizer.save(file);
  await expectError(() => train(options), 'ERR_CHECKPOINT', 'a checkpoint of train');
});

test('training ends when evaluations improve no more, also after it was resumed', async () => {
  const values = [5, 4, 3, 3, 3.5, 2, 2, 2, 2, 1];
  const checkpoint = { path: path.join(folder, 'run.safetensors'), every: 1 };
  const evaluate = { every: 1, run: (step: number) => values[step - 1]! };
  const options = { checkpoint, evaluate, earlyStop: { patience: 3 } };
  const { steps, ended, history } = await train(start(options));
  expect([steps, ended, history.at(-1)!.evaluation]).toEqual([9, 'earlyStop', 2]);
  rmSync(checkpoint.path);
  await train(start({ ...options, steps: 7 }));
  expect(await train(start({ ...options, resume: true }))).toMatchObject({ steps: 2, ended: 'earlyStop' });
  expect(await train(start({ ...options, resume: true }))).toMatchObject({ steps: 0, ended: 'earlyStop' });
});

test('an error names the step whose gradients are not finite', async () => {
  const options = start();
  const failing: Model<number> = {
    parameters: options.model.parameters,
    lossAndGradients: (batch) => {
      const loss = options.model.lossAndGradients(batch);
      if (batch === 3) options.model.parameters[1]!.grad[2] = NaN;
      return loss;
    },
  };
  await expectError(
    () => train({ ...options, model: failing }),
    'ERR_NON_FINITE',
    'In step 4: Expected finite gradients, got NaN at index 2 in "bias"',
  );
});

test('clipNorm for AdamW leaves the gradients of matrices as they are', async () => {
  const norms = async (clipNorm: TrainOptions<number>['clipNorm']) => {
    const options = start({ clipNorm, steps: 1 });
    const { history } = await train(options);
    const [weight, bias] = options.model.parameters.map(({ grad }) => Math.hypot(...grad));
    return { gradNorm: history[0]!.gradNorm, weight, bias };
  };
  const plain = await norms(null);
  const clipped = await norms({ max: 0.01, only: 'adamw' });
  expect(clipped.weight).toBe(plain.weight);
  expect(clipped.gradNorm).toBeCloseTo(plain.bias!, 5);
  expect(clipped.bias).toBeCloseTo(0.01, 6);
  const all = await norms({ max: 0.01 });
  expect(Math.hypot(all.weight!, all.bias!)).toBeCloseTo(0.01, 6);
});

test.each<[Partial<Record<keyof TrainOptions<number>, unknown>>, string]>([
  [{ resume: true }, 'Expected checkpoint to be given with resume: true'],
  [{ resume: '' }, 'Expected resume to be true, false or the name of a file'],
  [{ checkpoint: { path: '', every: 1 } }, 'Expected checkpoint.path'],
  [{ checkpoint: { path: 'x', every: 0 } }, 'Expected checkpoint.every'],
  [{ checkpoint: { path: 'x', every: 1, keep: 0 } }, 'Expected checkpoint.keep'],
  [{ checkpoint: { path: 'x', every: 1, kept: 1 } }, 'kept'],
  [{ earlyStop: { patience: 2 } }, 'Expected evaluate to be given with earlyStop'],
  [{ earlyStop: { patience: 0 }, evaluate: { every: 1, run: () => 1 } }, 'Expected earlyStop.patience'],
  [{ clipNorm: { max: 0 } }, 'Expected clipNorm.max'],
  [{ clipNorm: { max: 1, only: 'root' } }, 'Expected clipNorm.only'],
  [{ batches: () => 7 }, 'Expected what batches returns to be an iterable'],
])('%j is refused', async (options, message) => {
  await expectError(() => train(start(options as never)), 'ERR_INVALID_ARGUMENT', message);
  expect(existsSync('x')).toBe(false);
});

test('evaluations that a signal brings about do not count for an early stop', async () => {
  const run = async (file: string, stops: number[]) => {
    let ended = '';
    let last = 0;
    for (const stop of [...stops, undefined]) {
      const model = regression();
      const controller = new AbortController();
      const { ended: how } = await train({
        ...{ model, optimizer: new AdamW([...model.parameters], { lr: 0.01 }), steps: 60, batches: seeds(0) },
        ...{ checkpoint: { path: path.join(folder, file), every: 1 }, resume: true, signal: controller.signal },
        evaluate: { every: 4, run: (step) => step },
        earlyStop: { patience: 3 },
        onStep: ({ step }) => {
          last = step;
          if (step === stop) controller.abort();
        },
      });
      ended = how;
    }
    return { ended, last };
  };
  expect(await run('whole', [])).toEqual({ ended: 'earlyStop', last: 16 });
  expect(await run('parts', [6, 10])).toEqual({ ended: 'earlyStop', last: 16 });
});

test('metrics and onStep of a step come before its checkpoint', async () => {
  const model = regression();
  const [file, metrics] = [path.join(folder, 'run'), path.join(folder, 'metrics.jsonl')];
  const failure = new Error('killed');
  const settings = { batches: seeds(0), steps: 6, metrics, checkpoint: { path: file, every: 2 }, resume: true };
  const optimizer = new AdamW([...model.parameters]);
  await expect(
    train({
      ...{ model, optimizer, ...settings },
      onStep: ({ step }) => {
        if (step === 4) throw failure;
      },
    }),
  ).rejects.toBe(failure);
  const seen: number[] = [];
  await train({ model, optimizer, ...settings, onStep: ({ step }) => void seen.push(step) });
  expect(seen).toEqual([3, 4, 5, 6]);
  const steps = readFileSync(metrics, 'utf8').trimEnd().split('\n');
  expect(steps.map((line) => (JSON.parse(line) as StepMetrics).step)).toEqual([1, 2, 3, 4, 3, 4, 5, 6]);
});
