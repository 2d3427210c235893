import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import {
  AdamW,
  type Model,
  Muon,
  Parameter,
  Root,
  type StepMetrics,
  train,
  type TrainOptions,
} from '../../lib/index.js';
import { bits, expectError, relativeError } from '../support.js';
import { adamw, type Batch, batch, batches, isOpen, logistic, readLines } from './logistic.js';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'root-optimizer-train-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe('the loop', () => {
  test('has the optimizer to itself', async () => {
    const model = logistic();
    const optimizer = adamw(model);
    const options = { model, optimizer, steps: 2 };
    const lossAndGradients = jest.fn();
    const running = train({ ...options, batches: batches(2) });
    const second = () => train({ ...options, model: { ...model, lossAndGradients }, batches: batches(2) });
    await expectError(second, 'ERR_BUSY', 'Expected the train that is running with this optimizer to be awaited first');
    expect(lossAndGradients).not.toHaveBeenCalled();
    expect(await running).toMatchObject({ steps: 2 });
    const failing = { ...model, lossAndGradients: () => Promise.reject(new TypeError('as planned')) };
    await expect(train({ ...options, model: failing, batches: batches(2) })).rejects.toThrow('as planned');
    expect(await train({ ...options, batches: batches(2) })).toMatchObject({ steps: 2 });
  });

  test('gives zeros for every gradient of the model', async () => {
    const model = logistic();
    const frozen = new Parameter({ name: 'frozen', shape: [2] });
    const lossAndGradients = (one: Batch) => {
      expect([...frozen.grad]).toEqual([0, 0]);
      frozen.grad.fill(1);
      return model.lossAndGradients(one);
    };
    const both = { parameters: [model.w, frozen], lossAndGradients };
    await train({ model: both, optimizer: adamw(model), batches: batches(4), steps: 2, accumulation: 2 });
    expect.assertions(4);
  });

  test.each([1, 2])('says that a gradient was taken away (accumulation %p)', async (accumulation) => {
    for (const when of ['during', 'between'] as const) {
      const model = logistic();
      const take = (): void => void structuredClone(model.w.grad, { transfer: [model.w.grad.buffer as ArrayBuffer] });
      const taking: Model<Batch> = {
        parameters: model.parameters,
        lossAndGradients(one) {
          const loss = model.lossAndGradients(one);
          if (when === 'during') take();
          return loss;
        },
      };
      const options = { model: taking, optimizer: adamw(model), batches: batches(4), steps: 2, accumulation };
      const run = () => train({ ...options, onStep: when === 'between' ? take : undefined });
      await expectError(
        run,
        'ERR_INVALID_ARGUMENT',
        'Expected grad of parameter "w" to be a Float32Array of length 6, got one without memory',
      );
    }
  });

  test('trains, and tells of every step', async () => {
    const model = logistic();
    const optimizer = adamw(model);
    const { steps, ended, history } = await train({ model, optimizer, batches: batches(40), steps: 40 });
    expect({ steps, ended }).toEqual({ steps: 40, ended: 'steps' });
    expect(history.map(({ step }) => step)).toEqual(Array.from({ length: 40 }, (_, i) => i + 1));
    expect(history[0]!.loss).toBeCloseTo(Math.LN2, 6);
    expect(history[39]!.loss).toBeLessThan(0.3);
    expect(history[0]).toMatchObject({ lr: [0.1], applied: true });
    for (const { milliseconds, optimizerMilliseconds } of history) {
      expect(optimizerMilliseconds).toBeGreaterThan(0);
      expect(milliseconds).toBeGreaterThanOrEqual(optimizerMilliseconds);
    }
    expect(history[0]).not.toHaveProperty('gradNorm');
    expect(history[0]).not.toHaveProperty('evaluation');
    optimizer.dispose();
  });

  test('does what steps taken by hand do', async () => {
    const [looped, byHand] = [logistic(), logistic()];
    await train({ model: looped, optimizer: adamw(looped), batches: batches(5), steps: 5 });
    const optimizer = adamw(byHand);
    for (const one of batches(5)) {
      await byHand.lossAndGradients(one);
      await optimizer.step();
    }
    expect(bits(looped.w.data)).toBe(bits(byHand.w.data));
  });

  test('takes asynchronous models, asynchronous batches, and models that add to the gradient', async () => {
    const [plain, unusual] = [logistic(), logistic()];
    await train({ model: plain, optimizer: adamw(plain), batches: batches(6), steps: 3, accumulation: 2 });
    const adding: Model<Batch> = {
      parameters: unusual.parameters,
      async lossAndGradients(one) {
        const before = unusual.w.grad.slice();
        const loss = await unusual.lossAndGradients(one);
        before.forEach((value, i) => (unusual.w.grad[i]! += value));
        return loss;
      },
    };
    async function* stream(): AsyncGenerator<Batch> {
      for (const one of batches(6)) yield await Promise.resolve(one);
    }
    await train({ model: adding, optimizer: adamw(adding), batches: stream(), steps: 3, accumulation: 2 });
    expect(bits(unusual.w.data)).toBe(bits(plain.w.data));
  });

  test('leaves parameters that the optimizer does not have', async () => {
    const [model, frozen] = [logistic(), new Parameter({ name: 'frozen', shape: [2], data: Float32Array.of(1, 2) })];
    const both = { parameters: [frozen, model.w], lossAndGradients: (one: Batch) => model.lossAndGradients(one) };
    await train({ model: both, optimizer: adamw(model), batches: batches(2), steps: 2 });
    expect([...frozen.data]).toEqual([1, 2]);
  });

  test('reports a step that the optimizer skipped', async () => {
    const model = logistic();
    const broken: Model<Batch> = {
      parameters: model.parameters,
      lossAndGradients(one) {
        const loss = model.lossAndGradients(one);
        if (one.y.length === 1) model.w.grad[0] = NaN;
        return loss;
      },
    };
    const optimizer = new AdamW([model.w], { nonFinite: 'skip' });
    const { history } = await train({
      model: broken,
      optimizer,
      batches: [batch(2, 1), batch(1, 2), batch(2, 3)],
      steps: 3,
      clipNorm: 1,
    });
    expect(history.map(({ applied }) => applied)).toEqual([true, false, true]);
    expect(history[1]!.gradNorm).toBeNaN();
  });
});

describe('accumulation', () => {
  test.each([Root, Muon, AdamW])('of 4 batches of 8 is a batch of 32 (%p)', async (Algorithm) => {
    const parts = batches(12);
    const join = (all: Batch[]): Batch => ({
      x: Float32Array.from(all.flatMap(({ x }) => [...x])),
      y: Float32Array.from(all.flatMap(({ y }) => [...y])),
    });
    const [small, large] = [logistic(), logistic()];
    const few = await train({
      model: small,
      optimizer: new Algorithm([small.w]),
      batches: parts,
      steps: 3,
      accumulation: 4,
    });
    const joined = [0, 4, 8].map((i) => join(parts.slice(i, i + 4)));
    const whole = await train({ model: large, optimizer: new Algorithm([large.w]), batches: joined, steps: 3 });
    expect(relativeError(small.w.data, large.w.data)).toBeLessThan(1e-5);
    expect(relativeError(small.w.grad, large.w.grad)).toBeLessThan(1e-5);
    few.history.forEach(({ loss }, i) => expect(loss).toBeCloseTo(whole.history[i]!.loss, 6));
  });

  test('drops the batches left over for a whole step', async () => {
    const model = logistic();
    const result = await train({ model, optimizer: adamw(model), batches: batches(5), steps: 10, accumulation: 2 });
    expect(result).toMatchObject({ steps: 2, ended: 'batches' });
  });
});

describe('clipNorm', () => {
  test('scales all gradients together', async () => {
    const [a, b] = [new Parameter({ name: 'a', shape: [1] }), new Parameter({ name: 'b', shape: [1] })];
    const gradients: [number, number][] = [];
    const model: Model<number> = {
      parameters: [a, b],
      lossAndGradients(scale) {
        a.grad[0] = 3 * scale;
        b.grad[0] = 4 * scale;
        return 0;
      },
    };
    const onStep = (): void => void gradients.push([a.grad[0]!, b.grad[0]!]);
    const { history } = await train({
      model,
      optimizer: new AdamW([a, b]),
      batches: [1, 0.1, 0],
      steps: 3,
      clipNorm: 1,
      onStep,
    });
    expect(history.map(({ gradNorm }) => gradNorm)).toEqual([5, expect.closeTo(0.5, 6), 0]);
    expect(gradients[0]![0]).toBeCloseTo(0.6, 6);
    expect(gradients[0]![1]).toBeCloseTo(0.8, 6);
    expect(gradients[1]).toEqual([Math.fround(0.3), Math.fround(0.4)]);
  });
});

describe('schedules', () => {
  test('that are absent leave the rates to the caller', async () => {
    const model = logistic();
    const optimizer = adamw(model);
    const onStep = ({ step }: StepMetrics): void => void (optimizer.paramGroups[0]!.lr = 0.1 / 2 ** step);
    const { history } = await train({ model, optimizer, batches: batches(3), steps: 3, onStep });
    expect(history.map(({ lr }) => lr)).toEqual([[0.1], [0.05], [0.025]]);
    expect(optimizer.paramGroups[0]!.lr).toBe(0.0125);
  });

  test('are written to every group and taken back at the end', async () => {
    const model = logistic();
    const m = new Parameter({ name: 'm', shape: [2, 2], grad: new Float32Array(4).fill(1) });
    const both = { parameters: [model.w, m], lossAndGradients: (one: Batch) => model.lossAndGradients(one) };
    const optimizer = new Root([
      { params: [m], lr: 0.5 },
      { params: [model.w], lr: 0.1 },
    ]);
    const options = { model: both, optimizer, steps: 4 };
    const { history } = await train({ ...options, batches: batches(4), schedule: { kind: 'linear', warmup: 2 } });
    const lrs = [
      [0.25, 0.05],
      [0.5, 0.1],
      [(0.5 * 2) / 3, (0.1 * 2) / 3],
      [0.5 / 3, 0.1 / 3],
    ];
    expect(history.map(({ lr }) => lr)).toEqual(lrs.map((pair) => pair.map((lr) => expect.closeTo(lr, 12) as number)));
    expect(optimizer.paramGroups.map(({ lr }) => lr)).toEqual([0.5, 0.1]);
    const own = await train({ ...options, batches: batches(4), schedule: (step) => step / 4 });
    expect(own.history.map(({ lr }) => lr[0])).toEqual([0.125, 0.25, 0.375, 0.5]);
  });

  test('may be named', async () => {
    const model = logistic();
    const { history } = await train({
      model,
      optimizer: adamw(model, 1),
      batches: batches(3),
      steps: 3,
      schedule: 'cosine',
    });
    expect(history.map(({ lr }) => lr[0])).toEqual([1, 0.75, 0.25].map((lr) => expect.closeTo(lr, 12) as number));
  });

  test('that leave [0, 1] end training with the rates as they were', async () => {
    const model = logistic();
    const optimizer = adamw(model);
    const run = () => train({ model, optimizer, batches: batches(9), steps: 9, schedule: (step) => 2 / step });
    await expectError(run, 'ERR_INVALID_ARGUMENT', 'Expected what schedule returns to be in [0, 1], got 2');
    expect(optimizer.paramGroups[0]!.lr).toBe(0.1);
  });
});

describe('evaluation', () => {
  test('runs every so many steps and after the last', async () => {
    const model = logistic();
    const ran: number[] = [];
    const run = (step: number): number => ran.push(step);
    const { history } = await train({
      model,
      optimizer: adamw(model),
      batches: batches(8),
      steps: 8,
      evaluate: { every: 3, run },
    });
    expect(ran).toEqual([3, 6, 8]);
    expect(history.map(({ evaluation }) => evaluation)).toEqual([
      undefined,
      undefined,
      1,
      undefined,
      undefined,
      2,
      undefined,
      3,
    ]);
  });
});

describe('ending early', () => {
  test.each(['signal', 'batches'] as const)('by %s still evaluates after the last step', async (ended) => {
    const model = logistic();
    const ran: number[] = [];
    const run = (step: number): number => ran.push(step);
    const controller = new AbortController();
    const onStep = ({ step }: StepMetrics): void => (ended === 'signal' && step === 3 ? controller.abort() : undefined);
    const options = {
      model,
      optimizer: adamw(model),
      steps: 9,
      evaluate: { every: 2, run },
      signal: controller.signal,
      onStep,
    };
    const result = await train({ ...options, batches: batches(ended === 'signal' ? 9 : 3) });
    expect(result).toMatchObject({ steps: 3, ended });
    expect(ran).toEqual([2, 3]);
    expect(result.history.map(({ evaluation }) => evaluation)).toEqual([undefined, 1, 2]);
  });

  test('does not evaluate twice after the last step', async () => {
    const model = logistic();
    const run = jest.fn(() => 0);
    await train({ model, optimizer: adamw(model), batches: batches(2), steps: 9, evaluate: { every: 2, run } });
    expect(run).toHaveBeenCalledTimes(1);
  });

  test('leaves an iterator alone that threw, and closes others', async () => {
    const model = logistic();
    const close = jest.fn(() => ({ done: true as const, value: undefined }));
    const source = (next: () => IteratorResult<Batch>) => ({ [Symbol.iterator]: () => ({ next, return: close }) });
    const fail = (): never => {
      throw new TypeError('as planned');
    };
    await expect(train({ model, optimizer: adamw(model), batches: source(fail), steps: 1 })).rejects.toThrow(
      'as planned',
    );
    expect(close).not.toHaveBeenCalled();
    await train({
      model,
      optimizer: adamw(model),
      batches: source(() => ({ done: false, value: batch(2, 1) })),
      steps: 1,
    });
    expect(close).toHaveBeenCalledTimes(1);
  });

  test('tells of an error in cleaning up only where there was none before', async () => {
    const file = path.join(folder, 'cleanup.jsonl');
    const model = logistic();
    const optimizer = adamw(model);
    const closing = (): never => {
      throw new TypeError('in closing');
    };
    const source = {
      [Symbol.iterator]: () => ({ next: () => ({ done: false, value: batch(2, 1) }), return: closing }),
    };
    const options = { model, optimizer, batches: source, steps: 1, metrics: file };
    await expect(train(options)).rejects.toThrow('in closing');
    const onStep = (): never => {
      throw new TypeError('as planned');
    };
    await expect(train({ ...options, onStep })).rejects.toThrow('as planned');
    expect(isOpen(file)).toBe(false);
    await expect(optimizer.step()).resolves.toMatchObject({ applied: true });
  });

  test('a signal ends training after the current step and leaves the optimizer in use', async () => {
    const file = path.join(folder, 'aborted.jsonl');
    const [model, reference] = [logistic(), logistic()];
    const optimizer = adamw(model);
    const controller = new AbortController();
    const onStep = ({ step }: StepMetrics): void => (step === 2 ? controller.abort() : undefined);
    const all = { model, optimizer, schedule: 'cosine', metrics: file } as const;
    const result = await train({ ...all, batches: batches(9), steps: 9, signal: controller.signal, onStep });
    expect(result).toMatchObject({ steps: 2, ended: 'signal' });
    expect(readLines(file)).toHaveLength(2);
    expect(optimizer.paramGroups[0]!.lr).toBe(0.1);
    expect(optimizer.stateOf(model.w).step).toBe(2);
    const again = {
      model: reference,
      optimizer: adamw(reference),
      batches: batches(2),
      steps: 9,
      schedule: 'cosine',
    } as const;
    await train(again);
    expect(bits(model.w.data)).toBe(bits(reference.w.data));
    await expect(optimizer.step()).resolves.toMatchObject({ step: 3 });
  });

  test('a signal given before takes no step', async () => {
    const model = logistic();
    const result = await train({
      model,
      optimizer: adamw(model),
      batches: batches(1),
      steps: 1,
      signal: AbortSignal.abort(),
    });
    expect(result).toEqual({ steps: 0, ended: 'signal', history: [] });
  });

  test.each(['lossAndGradients', 'evaluate', 'onStep', 'batches'] as const)(
    'an error in %s comes out with everything closed',
    async (where) => {
      const file = path.join(folder, `error-${where}.jsonl`);
      const closed = jest.fn();
      const model = logistic();
      const optimizer = adamw(model);
      const fail = (here: string, step: number): void => {
        if (here === where && step === 2) throw new TypeError('as planned');
      };
      function* source(): Generator<Batch, void> {
        try {
          for (const [i, one] of batches(5).entries()) {
            fail('batches', i + 1);
            yield one;
          }
        } finally {
          closed();
        }
      }
      let calls = 0;
      const failing: Model<Batch> = {
        parameters: model.parameters,
        lossAndGradients(one) {
          fail('lossAndGradients', ++calls);
          return model.lossAndGradients(one);
        },
      };
      const evaluate = {
        every: 1,
        run(step: number): number {
          fail('evaluate', step);
          return 0;
        },
      };
      const onStep = ({ step }: StepMetrics): void => fail('onStep', step);
      const options = {
        model: failing,
        optimizer,
        batches: source(),
        steps: 5,
        schedule: 'linear',
        metrics: file,
        evaluate,
        onStep,
      } as const;
      await expect(train(options)).rejects.toThrow(new TypeError('as planned'));
      expect(closed).toHaveBeenCalledTimes(1);
      expect(isOpen(file)).toBe(false);
      expect(readLines(file)).toHaveLength(where === 'onStep' ? 2 : 1);
      expect(optimizer.paramGroups[0]!.lr).toBe(0.1);
      await expect(optimizer.step()).resolves.toMatchObject({ applied: true });
    },
  );

  test("the optimizer's errors come out", async () => {
    const model = { ...logistic(), lossAndGradients: () => 0 };
    const optimizer = adamw(model);
    optimizer.dispose();
    await expectError(() => train({ model, optimizer, batches: batches(1), steps: 1 }), 'ERR_DISPOSED', 'disposed');
  });

  test('no batches at all are an error', async () => {
    const model = logistic();
    const run = () => train({ model, optimizer: adamw(model), batches: batches(1), steps: 1, accumulation: 2 });
    await expectError(run, 'ERR_INVALID_ARGUMENT', 'Expected batches to be at least the 2 of a step, got fewer');
  });
});

describe('options', () => {
  const model = logistic();
  const good: TrainOptions<Batch> = { model, optimizer: adamw(model), batches: batches(1), steps: 1 };

  test.each<[Record<string, unknown>, string]>([
    [{ step: 1 }, 'Unknown option "step" of train; did you mean "steps"?'],
    [{ optimizer: {} }, 'Expected optimizer to be a Root, Muon or AdamW, got an Object'],
    [{ model: null }, 'Expected model to be an object, got null'],
    [
      { model: { parameters: [1], lossAndGradients: () => 0 } },
      'Expected model.parameters to be a list of Parameters, got [1]',
    ],
    [{ model: { parameters: [model.w] } }, 'Expected model.lossAndGradients to be a function, got undefined'],
    [{ model: logistic('v') }, 'Expected the optimizer\'s parameters to be the model\'s, got "w" besides'],
    [{ batches: 7 }, 'Expected batches to be an iterable, an async iterable or a function, got 7'],
    [
      { batches: { [Symbol.iterator]: 7 } },
      'Expected batches to be an iterable, an async iterable or a function, got an Object',
    ],
    [{ steps: 0 }, 'Expected steps to be an integer in [1, 9007199254740991], got 0'],
    [{ steps: undefined }, 'got undefined'],
    [{ schedule: 'step' }, 'Expected the kind of schedule to be one of "cosine", "linear", "constant", got "step"'],
    [{ schedule: { kind: 'cosine', warmup: 2 } }, 'Expected warmup to be an integer in [0, 1], got 2'],
    [{ schedule: 3 }, 'Expected schedule to be an object, got 3'],
    [{ accumulation: 0 }, 'Expected accumulation to be an integer in [1, 9007199254740991], got 0'],
    [{ clipNorm: 0 }, 'Expected clipNorm to be in (0, ∞), got 0'],
    [{ clipNorm: '1' }, 'Expected clipNorm to be in (0, ∞), got "1"'],
    [{ evaluate: () => 0 }, 'Expected evaluate to be an object, got'],
    [{ evaluate: { every: 0, run: () => 0 } }, 'Expected evaluate.every to be an integer in'],
    [{ evaluate: { every: 1 } }, 'Expected evaluate.run to be a function, got undefined'],
    [{ evaluate: { every: 1, run: () => 0, runs: 1 } }, 'Unknown option "runs" of evaluate; did you mean "run"?'],
    [{ progress: 'yes' }, 'Expected progress to be true, false or an object, got "yes"'],
    [{ progress: { label: 1 } }, 'Expected progress.label to be a string, got 1'],
    [{ progress: { stream: {} } }, 'Expected progress.stream to be a writable stream, got an Object'],
    [{ progress: { interval: -1 } }, 'Expected progress.interval to be in [0, ∞), got -1'],
    [{ progress: { colour: 1 } }, 'Unknown option "colour" of progress'],
    [{ metrics: '' }, 'Expected metrics to be the name of a file or a writable stream, got ""'],
    [{ metrics: {} }, 'Expected metrics to be the name of a file or a writable stream, got an Object'],
    [{ labels: 'a' }, 'Expected labels to be an object, got "a"'],
    [{ labels: { run: null } }, 'Expected labels.run to be a string, a number, true or false, got null'],
    [
      { labels: { loss: 1 } },
      'Expected the names of labels to be other than step, loss, lr, applied, gradNorm, accumulation, noiseScale, ',
    ],
    [{ signal: {} }, 'Expected signal to be an AbortSignal, got an Object'],
    [{ onStep: true }, 'Expected onStep to be a function, got true'],
    [
      { model: { ...model, lossAndGradients: () => 'low' } },
      'Expected what lossAndGradients returns to be a number, got "low"',
    ],
    [{ evaluate: { every: 1, run: () => null } }, 'Expected what evaluate.run returns to be a number, got null'],
  ])('%p is refused', async (wrong, message) => {
    await expectError(() => train({ ...good, ...wrong }), 'ERR_INVALID_ARGUMENT', message);
  });

  test('the argument has to be an object', async () => {
    await expectError(
      () => train(undefined as never),
      'ERR_INVALID_ARGUMENT',
      'Expected the argument of train to be an object, got undefined',
    );
  });
});
