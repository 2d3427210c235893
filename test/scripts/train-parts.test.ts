import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { AdamW, devices, Muon, type Optimizer, orthogonalityError, Parameter, Root } from '../../lib/index.js';
import { type Batch, DataError, loadCorpus, trainingBatches, validationBatches } from '../../scripts/train/data.js';
import { Gpt } from '../../scripts/train/model.js';
import { type Labelled, type NoiseKind, withNoise } from '../../scripts/train/noise.js';
import { makeOptimizer } from '../../scripts/train/optimizers.js';
import { parseOptions, UsageError } from '../../scripts/train/options.js';
import { measureOrthogonality } from '../../scripts/train/orthogonality.js';
import { clipGradient } from '../../lib/train/watch.js';
import { makeRandom, normal } from '../../scripts/common/random.js';
import { sample } from '../../scripts/train/sample.js';
import { gaussian, relativeError } from '../support.js';

jest.setTimeout(30_000);

describe('the model', () => {
  const shape = { vocabulary: 7, context: 5, width: 8, heads: 2, layers: 2 };
  const random = makeRandom(3, 'test');
  const draw = (length: number): Int32Array =>
    Int32Array.from({ length }, () => Math.floor(random() * shape.vocabulary));
  const batch: Batch = { rows: 3, inputs: draw(15), targets: draw(15) };
  let model: Gpt;
  beforeAll(async () => {
    model = await Gpt.create(shape);
  });
  beforeEach(() => {
    model.initialize(makeRandom(1, 'weights'));
    // Embeddings and head begin so small that differences would be lost in rounding.
    for (const { name, data } of model.parameters) {
      if (!/\d|norm/.test(name)) data.forEach((value, i) => (data[i] = 20 * value));
    }
  });
  afterAll(() => model.dispose());

  test('has gradients that agree with finite differences', async () => {
    const loss = await model.lossAndGradients(batch);
    expect(await model.loss(batch)).toBeCloseTo(loss, 5);
    for (const { name, data, grad } of model.parameters) {
      // The derivative is taken along a direction of random signs, which weighs every entry.
      const signs = Float32Array.from(data, () => Math.sign(random() - 0.5));
      const before = data.slice();
      const h = 0.02 / Math.sqrt(data.length);
      const at = async (step: number): Promise<number> => {
        before.forEach((value, i) => (data[i] = value + step * signs[i]!));
        return model.loss(batch);
      };
      const difference = ((await at(h)) - (await at(-h))) / (2 * h);
      data.set(before);
      const slope = grad.reduce((sum, value, i) => sum + value * signs[i]!, 0);
      const scale = Math.sqrt(grad.reduce((sum, value) => sum + value * value, 0));
      expect({ name, error: Math.abs(difference - slope) < 0.02 * scale + 1e-4 }).toEqual({ name, error: true });
    }
  });

  test('begins at the loss of guessing', async () => {
    model.initialize(makeRandom(1, 'weights'));
    expect(await model.loss(batch)).toBeCloseTo(Math.log(shape.vocabulary), 1);
  });

  test('does not look ahead', async () => {
    const [a, b] = [Int32Array.of(1, 2, 3, 4, 5), Int32Array.of(1, 2, 3, 6, 0)];
    const [first, second] = [await model.logits(a), await model.logits(b)];
    const seen = 3 * shape.vocabulary;
    expect([...second.subarray(0, seen)]).toEqual([...first.subarray(0, seen)]);
    expect([...second.subarray(seen)]).not.toEqual([...first.subarray(seen)]);
  });

  test('writes more than its context', async () => {
    const tokens = await sample(model, [1, 2], 9, 1, makeRandom(1, 'sample'));
    expect(tokens).toHaveLength(9);
    for (const token of tokens) expect(token).toBeGreaterThanOrEqual(0);
    for (const token of tokens) expect(token).toBeLessThan(shape.vocabulary);
    expect(await sample(model, [1, 2], 9, 1, makeRandom(1, 'sample'))).toEqual(tokens);
  });
});

describe('the text', () => {
  let folder: string;
  beforeAll(() => {
    folder = mkdtempSync(path.join(tmpdir(), 'root-optimizer-data-'));
    mkdirSync(path.join(folder, 'inner'));
    writeFileSync(path.join(folder, 'b.txt'), 'ab'.repeat(50));
    writeFileSync(path.join(folder, 'inner', 'a.txt'), 'cd'.repeat(50));
    writeFileSync(path.join(folder, 'image.bin'), Buffer.from([0, 1, 2]));
    writeFileSync(path.join(folder, '.hidden'), 'xyz'.repeat(50));
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  test('of a folder is all its files but hidden and binary ones, with the last tenth of each held out', () => {
    const { vocabulary, training, validation, unigramEntropy } = loadCorpus(folder, 8);
    const decode = (tokens: Uint8Array): string => String.fromCharCode(...tokens.map((token) => vocabulary[token]!));
    expect(decode(training)).toBe('ab'.repeat(45) + 'cd'.repeat(45));
    expect(decode(validation)).toBe('ab'.repeat(5) + 'cd'.repeat(5));
    expect(unigramEntropy).toBeCloseTo(Math.log(4), 12);
  });

  test('of a folder with nothing but a binary file is none, of a file that is named is it', () => {
    const binary = path.join(folder, '.binary');
    mkdirSync(binary);
    writeFileSync(path.join(binary, 'image.bin'), Buffer.from([0, 1, 2, 3].concat(Array<number>(200).fill(4))));
    expect(() => loadCorpus(binary, 8)).toThrow(new DataError(`Expected text in ${binary}, got nothing`));
    expect([...loadCorpus(path.join(binary, 'image.bin'), 8).vocabulary]).toEqual([0, 1, 2, 3, 4]);
  });

  test('comes in windows whose targets are one byte on', () => {
    const bytes = Uint8Array.from({ length: 50 }, (_, i) => i);
    const batches = trainingBatches(bytes, 4, 10, makeRandom(1, 'batches'));
    const starts = new Set<number>();
    for (let i = 0; i < 200; i++) {
      const { inputs, targets } = batches.next().value;
      expect([...targets]).toEqual(Array.from(inputs, (byte) => byte + 1));
      for (const row of [0, 1, 2, 3]) starts.add(inputs[row * 10]!);
    }
    expect([Math.min(...starts), Math.max(...starts)]).toEqual([0, 39]);
    const held = validationBatches(bytes, 2, 10, 2);
    expect(held.map(({ inputs }) => [inputs[0], inputs[10]])).toEqual([
      [0, 13],
      [26, 39],
    ]);
    expect(held[1]!.targets[19]).toBe(49);
  });

  test("by default is TypeScript's declarations", () => {
    const { training, vocabulary, unigramEntropy } = loadCorpus(undefined, 64);
    expect(training.length).toBeGreaterThan(2e6);
    expect(Math.max(...training.subarray(0, 1e5))).toBeLessThan(vocabulary.length);
    expect(unigramEntropy).toBeGreaterThan(3);
    expect(unigramEntropy).toBeLessThan(4);
  });
});

describe('random numbers', () => {
  test('depend on seed and purpose only', () => {
    const take = (seed: number, purpose: string): number[] => Array.from({ length: 5 }, makeRandom(seed, purpose));
    expect(take(1, 'a')).toEqual(take(1, 'a'));
    expect(new Set([take(1, 'a'), take(2, 'a'), take(1, 'b')].flat()).size).toBe(15);
  });

  test('are uniform and normal', () => {
    const random = makeRandom(5, 'test');
    const uniform = Array.from({ length: 20_000 }, random);
    expect(uniform.reduce((a, b) => a + b) / uniform.length).toBeCloseTo(0.5, 1.7);
    expect(uniform.every((value) => value >= 0 && value < 1)).toBe(true);
    const deviates = Array.from({ length: 20_000 }, () => normal(random));
    expect(deviates.reduce((a, b) => a + b) / deviates.length).toBeCloseTo(0, 1);
    expect(deviates.reduce((a, b) => a + b * b, 0) / deviates.length).toBeCloseTo(1, 1);
  });
});

describe('noise', () => {
  const parameters = [new Parameter({ name: 'w', shape: [200, 200] }), new Parameter({ name: 'bias', shape: [1] })];
  const [w, bias] = parameters as [Parameter, Parameter];
  const value = (i: number, scale: number): number => (i % 2 === 0 ? scale : -scale);
  /** A model whose gradient has the root mean square `scale`. */
  const model = (scale: number, seen: number[][] = []) => ({
    parameters,
    lossAndGradients({ targets }: Labelled) {
      seen.push([...targets]);
      w.grad.forEach((_, i) => (w.grad[i] = value(i, scale)));
      bias.grad[0] = 1;
      return 1;
    },
  });
  const noisy = (seed = 1) => ({ matrices: [w], classes: 10, random: makeRandom(seed, 'noise') });
  /** What the noise adds to the gradients of each step, in multiples of their root mean square. */
  const added = async (kind: NoiseKind, steps = 1, scale = 1, seed = 1): Promise<Float32Array[]> => {
    const noisyModel = withNoise(kind, model(scale), noisy(seed));
    const all: Float32Array[] = [];
    for (let step = 0; step < steps; step++) {
      expect(await noisyModel.lossAndGradients({ targets: Int32Array.of(3) })).toBe(1);
      expect(bias.grad[0]).toBe(1);
      all.push(w.grad.map((entry, i) => (entry - value(i, scale)) / scale));
    }
    return all;
  };
  const quantile = (values: Float32Array, share: number): number =>
    values.map(Math.abs).sort()[Math.floor(share * values.length)]!;
  const rootMeanSquare = (values: Float32Array): number =>
    Math.sqrt(values.reduce((sum, entry) => sum + entry * entry, 0) / values.length);

  test('none is the model itself', () => {
    const clean = model(1);
    expect(withNoise('none', clean, noisy())).toBe(clean);
  });

  test('spikes hit 0.1 % of the entries at 100 standard deviations', async () => {
    const [spikes] = (await added('spikes')) as [Float32Array];
    const hit = spikes.filter((entry) => entry !== 0);
    expect(hit.length).toBeGreaterThan(36);
    expect(hit.length).toBeLessThanOrEqual(40);
    expect(rootMeanSquare(hit)).toBeGreaterThan(60);
    expect(rootMeanSquare(hit)).toBeLessThan(150);
  });

  test('a burst replaces the gradients of one step in each 50 by noise 100 times as large', async () => {
    const steps = await added('burst', 200);
    const bursts = steps.flatMap((step, i) => (rootMeanSquare(step) > 0 ? [i] : []));
    expect(bursts.map((i) => Math.floor(i / 50))).toEqual([0, 1, 2, 3]);
    expect(new Set(bursts.map((i) => i % 50)).size).toBeGreaterThan(1);
    for (const i of bursts) {
      const replaced = steps[i]!.map((entry, j) => (entry + value(j, 1)) / 100);
      expect(rootMeanSquare(replaced)).toBeCloseTo(1, 1);
      expect(quantile(replaced, 0.5)).toBeCloseTo(0.6745, 1);
      expect(replaced.reduce((a, b) => a + b) / replaced.length).toBeCloseTo(0, 1);
    }
  });

  test('student has the quantiles of t with 2 degrees of freedom', async () => {
    const [deviates] = (await added('student')) as [Float32Array];
    for (const share of [0.25, 0.5, 0.9, 0.99]) {
      expect(quantile(deviates, share) / (share * Math.sqrt(2 / (1 - share ** 2)))).toBeCloseTo(1, 0.7);
    }
    expect(deviates.filter((entry) => entry > 0).length / deviates.length).toBeCloseTo(0.5, 1.5);
  });

  test('labels are random for a tenth of the targets, and gradients are as they are', async () => {
    const seen: number[][] = [];
    const targets = Int32Array.from({ length: 40_000 }, (_, i) => i % 10);
    const noisyModel = withNoise('labels', model(1, seen), noisy());
    expect(await noisyModel.lossAndGradients({ targets })).toBe(1);
    expect(w.grad[0]).toBe(1);
    expect(targets[11]).toBe(1);
    const changed = seen[0]!.filter((target, i) => target !== targets[i]);
    // A tenth of the random ones are right by chance.
    expect(changed.length / targets.length).toBeCloseTo(0.09, 2);
    const counts = Array.from({ length: 10 }, (_, digit) => changed.filter((target) => target === digit).length);
    for (const count of counts) expect(count / changed.length).toBeCloseTo(0.1, 1);
  });

  test.each(['spikes', 'burst', 'student'] as const)('%s is the same for a seed, times the gradient', async (kind) => {
    const steps = kind === 'burst' ? 50 : 2;
    const bytes = (gradients: readonly Float32Array[]): Buffer =>
      Buffer.concat(gradients.map(({ buffer }) => Buffer.from(buffer)));
    const once = await added(kind, steps);
    const [again, larger, other] = [
      await added(kind, steps),
      await added(kind, steps, 2),
      await added(kind, steps, 1, 2),
    ];
    expect(bytes(again).equals(bytes(once))).toBe(true);
    expect(bytes(other).equals(bytes(once))).toBe(false);
    for (const [i, step] of once.entries()) {
      if (rootMeanSquare(step) > 0) expect(relativeError(larger[i]!, step)).toBeLessThan(1e-4);
    }
  });

  test('labels are the same for a seed', async () => {
    const targets = async (seed: number): Promise<number[][]> => {
      const seen: number[][] = [];
      const noisyModel = withNoise('labels', model(1, seen), noisy(seed));
      await noisyModel.lossAndGradients({ targets: new Int32Array(100) });
      await noisyModel.lossAndGradients({ targets: new Int32Array(100) });
      return seen;
    };
    expect(await targets(1)).toEqual(await targets(1));
    expect(await targets(2)).not.toEqual(await targets(1));
  });
});

test('--coefficients and --precision apply to every optimizer of matrices, --threshold to root', () => {
  const [w, bias] = [new Parameter({ name: 'w', shape: [4, 4] }), new Parameter({ name: 'bias', shape: [4] })];
  const model = { parameters: [w, bias], hidden: [w] } as unknown as Gpt;
  const groupOf = (name: 'root' | 'muon', ...args: string[]) => {
    using optimizer = makeOptimizer(name, model, 0.1, { ...parseOptions(args)!, device: 'cpu' });
    return { ...optimizer.paramGroups[0], precision: optimizer.precision };
  };
  for (const name of ['root', 'muon'] as const) {
    for (const precision of devices().cpu.precisions) {
      expect(groupOf(name, '--precision', precision).precision).toBe(precision);
    }
  }
  for (const name of ['root', 'muon'] as const) {
    expect(groupOf(name, '--coefficients', 'quintic')).toMatchObject({ coefficients: 'quintic' });
  }
  expect(groupOf('root')).toMatchObject({ threshold: { quantile: 0.9, scale: 1 } });
  expect(groupOf('root', '--threshold', '0.95')).toMatchObject({ threshold: { quantile: 0.95, scale: 1 } });
  expect(groupOf('root', '--threshold', 'robust')).toMatchObject({ threshold: { quantile: 0.5, scale: 3.5 / 0.6745 } });
  expect(groupOf('root', '--threshold', 'none')).toMatchObject({ threshold: null });
  expect(groupOf('muon', '--threshold', 'none')).not.toHaveProperty('threshold');
});

describe('the orthogonality that is reported', () => {
  const calibration = {
    format: 'root-optimizer-coefficients',
    version: 1,
    steps: 3,
    entries: [
      {
        names: ['w'],
        coefficients: [
          [3, -3, 1],
          [2, -1.5, 0.5],
          [1.5, -0.5, 0],
        ],
      },
    ],
  } as const;
  const plain = { lr: 1, lrScale: 'none', weightDecay: 0, device: 'cpu' } as const;

  test.each<[string, (w: Parameter) => Optimizer]>([
    ['ROOT', (w) => new Root([w], plain)],
    ['ROOT without a threshold', (w) => new Root([w], { ...plain, threshold: null })],
    ['ROOT in bfloat16', (w) => new Root([w], { ...plain, precision: 'bfloat16' })],
    [
      'Muon without Nesterov, with coefficients by name',
      (w) => new Muon([w], { ...plain, nesterov: false, coefficients: calibration }),
    ],
  ])('is that of what %s added to the weights', async (_, make) => {
    const w = new Parameter({ name: 'w', shape: [12, 20] });
    using optimizer = make(w);
    const before = w.data.slice();
    for (const seed of [1, 2, 3]) {
      before.set(w.data);
      w.grad.set(gaussian(w.size, seed).map((value) => value ** 3));
      await optimizer.step();
    }
    const { step, matrix, error, spectra } = (await measureOrthogonality(optimizer, w, true))!;
    expect({ step, matrix }).toEqual({ step: 3, matrix: 'w' });
    expect(error).toBeCloseTo(
      orthogonalityError(
        before.map((value, i) => value - w.data[i]!),
        w.shape,
      ).polar,
      5,
    );
    expect(spectra!.before.reduce((sum, value) => sum + value * value, 0)).toBeCloseTo(1, 5);
    expect(Math.sqrt(spectra!.after.reduce((sum, value) => sum + (value - 1) ** 2, 0) / 12)).toBeCloseTo(error, 9);
  });

  test.each([
    [1, 0.5, 2],
    [1, 1.9, 2],
    [1, 2.1, 2],
    [0.3, 80, 2],
    [0.3, 80, 3],
    [0.3, 80, null],
  ])('takes the gradient as it was clipped: mean threshold %p, threshold %p, growth %p', (mean, threshold, growth) => {
    const factor = growth === null ? 1 : Math.min(1, (growth * mean) / threshold);
    const state = { step: 2, gradientThreshold: threshold, gradientScale: 0.9 * mean + 0.1 * factor * threshold };
    const clipped = clipGradient(Float32Array.of(-10 * threshold, threshold / 2, 2 * threshold), state, growth);
    const wanted = Float32Array.of(-1, 0.5, 1).map((value) => factor * threshold * value);
    expect(relativeError(clipped, wanted)).toBeLessThan(1e-6);
    expect(clipGradient(wanted, { ...state, gradientThreshold: null }, growth)).toBe(wanted);
  });

  test('is none where AdamW steps', async () => {
    const w = new Parameter({ name: 'w', shape: [2, 2] });
    using optimizer = new AdamW([w], { device: 'cpu' });
    expect(await measureOrthogonality(optimizer, w, false)).toBeUndefined();
  });
});

describe('options', () => {
  test('read a file of coefficients', () => {
    const folder = mkdtempSync(path.join(tmpdir(), 'root-optimizer-options-'));
    const file = path.join(folder, 'coefficients.json');
    const calibration = {
      format: 'root-optimizer-coefficients',
      version: 1,
      steps: 1,
      entries: [{ shape: [4, 4], coefficients: [[1.5, -0.5, 0]] }],
    };
    try {
      writeFileSync(file, JSON.stringify(calibration));
      expect(parseOptions(['--coefficients', file])!.coefficients).toEqual(calibration);
      writeFileSync(file, JSON.stringify({ ...calibration, version: 2 }));
      expect(() => parseOptions(['--coefficients', file])).toThrow(
        `got "${file}": Expected coefficients.version to be 1, got 2`,
      );
      writeFileSync(file, 'none');
      expect(() => parseOptions(['--coefficients', file])).toThrow(new RegExp(`got "${file}": .*JSON`));
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  test('have defaults', () => {
    expect(parseOptions([])).toEqual({
      ...{
        optimizers: ['root', 'muon', 'adamw'],
        steps: 200,
        batch: 16,
        lrs: undefined,
        noise: 'none',
        data: undefined,
      },
      ...{
        coefficients: 'adaptive',
        threshold: { quantile: 0.9 },
        seeds: [1],
        device: 'auto',
        precision: 'auto',
        threads: 0,
        out: undefined,
      },
      flags: {
        ...{ optimizers: 'root,muon,adamw', steps: '200', batch: '16', coefficients: 'adaptive', threshold: '0.9' },
        ...{ noise: 'none', seed: '1', seeds: '1', device: 'auto', precision: 'auto', threads: '0' },
      },
    });
    expect(
      parseOptions(['--seed', '5', '--seeds', '3', '--lr', '0.1,2e-2,1e-1', '--optimizers', 'muon,muon']),
    ).toMatchObject({
      ...{ seeds: [5, 6, 7], lrs: [0.1, 0.02], optimizers: ['muon'] },
    });
  });

  test.each<[string[], object]>([
    [['--gradient-threshold', 'off'], { gradientThreshold: null }],
    [['--gradient-threshold', 'on'], { gradientThreshold: {} }],
    [['--gradient-threshold', 'robust'], { gradientThreshold: 'robust' }],
    [['--gradient-threshold', '0.98'], { gradientThreshold: { quantile: 0.98 } }],
    [['--gradient-threshold', '0.98', '--growth', 'off'], { gradientThreshold: { quantile: 0.98, growth: null } }],
    [['--gradient-threshold', 'on', '--growth', '3'], { gradientThreshold: { growth: 3 } }],
    [
      ['--gradient-threshold', 'robust', '--growth', '3'],
      { gradientThreshold: { quantile: 0.5, scale: 3.5 / 0.6745, growth: 3 } },
    ],
    [['--normalize', 'rows'], { normalize: 'rows' }],
    [['--normalize', 'off'], { normalize: null }],
  ])('%p set the step', (args, expected) => {
    const { gradientThreshold, normalize } = parseOptions(args)!;
    expect({ gradientThreshold, normalize }).toEqual({
      gradientThreshold: undefined,
      normalize: undefined,
      ...expected,
    });
  });

  test('repeat those of an earlier run', () => {
    const folder = mkdtempSync(path.join(tmpdir(), 'root-optimizer-repeat-'));
    const file = path.join(folder, 'config.json');
    try {
      const first = parseOptions(['--noise', 'burst', '--seeds', '3', '--lr', '0.1', '--out', 'elsewhere'])!;
      writeFileSync(file, JSON.stringify({ ...first, cores: 2 }));
      expect(parseOptions(['--repeat', file])).toEqual({ ...first, out: undefined });
      expect(parseOptions(['--seeds', '1', '--repeat', file])).toMatchObject({
        noise: 'burst',
        seeds: [1],
        lrs: [0.1],
      });
      writeFileSync(file, '{}');
      expect(() => parseOptions(['--repeat', file])).toThrow(`got "${file}": it has no "flags"`);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  test.each([
    [['--steps', '0'], 'Expected --steps to be a whole number in [1, 1000000000], got "0"'],
    [['--steps', '1.5'], 'Expected --steps to be a whole number in [1, 1000000000], got "1.5"'],
    [['--batch', 'many'], 'Expected --batch to be a whole number in [1, 4096], got "many"'],
    [['--batch', '4097'], 'Expected --batch to be a whole number in [1, 4096], got "4097"'],
    [['--seeds', '1001'], 'Expected --seeds to be a whole number in [1, 1000], got "1001"'],
    [['--seed', '2e9'], 'Expected --seed to be a whole number in [0, 1000000000], got "2e9"'],
    [['--threads', '1025'], 'Expected --threads to be a whole number in [0, 1024], got "1025"'],
    [['--seeds', '-1'], '--seeds'],
    [['--lr', '0.1,'], 'Expected --lr to be numbers in (0, 10], got ""'],
    [['--lr', '0'], 'Expected --lr to be numbers in (0, 10], got "0"'],
    [
      ['--coefficients', 'ours'],
      'Expected --coefficients to be one of muon, paper, polar-express, cans, quintic, deepseek-v4, cubic5, adaptive ' +
        'or a file that root-optimizer calibrate wrote, got "ours": ENOENT',
    ],
    [['--threshold', '1.1'], 'Expected --threshold to be a quantile in [0, 1], robust or none, got "1.1"'],
    [['--threshold', ''], 'Expected --threshold to be a quantile in [0, 1], robust or none, got ""'],
    [['--noise', 'loud'], 'Expected --noise to be one of none, spikes, burst, student, labels, got "loud"'],
    [
      ['--gradient-threshold', '1.1'],
      'Expected --gradient-threshold to be a quantile in [0, 1], robust, on or off, got "1.1"',
    ],
    [['--gradient-threshold', 'on', '--growth', '0'], 'Expected --growth to be a number above 0 or off, got "0"'],
    [['--growth', '2'], 'Expected --growth beside --gradient-threshold, which is on'],
    [['--gradient-threshold', 'off', '--growth', '2'], 'Expected --growth beside --gradient-threshold, which is on'],
    [['--normalize', 'columns'], 'Expected --normalize to be one of rows, off, got "columns"'],
    [['--repeat', 'absent.json'], 'Expected --repeat to be the config.json of a run, got "absent.json": ENOENT'],
    [
      ['--precision', 'float8'],
      'Expected --precision to be one of auto, float16, bfloat16, bfloat16x3, float32, got "float8"',
    ],
    [['--device', 'gpu'], 'Expected --device to be auto, cpu, cuda or cuda:N, got "gpu"'],
    [['--steps'], '--steps'],
    [['text.txt'], 'text.txt'],
  ])('%p is refused', (args, message) => {
    expect(() => parseOptions(args)).toThrow(UsageError);
    expect(() => parseOptions(args)).toThrow(message);
  });
});
