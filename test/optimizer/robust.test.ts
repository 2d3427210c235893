import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import {
  AdamW,
  type AdamWState,
  type LrScale,
  Muon,
  type MuonOptions,
  type OrthogonalState,
  Parameter,
  Root,
  type RootOptions,
  type Triple,
} from '../../lib/index.js';
import * as reference from '../reference.js';
import { bits, devicesUnderTest, expectError, gaussian, golden, random, relativeError, snapshot } from '../support.js';

const precision = 'float32' as const;
const triples: Triple[] = Array.from({ length: 5 }, () => [2, -1.5, 0.5]);

interface Trajectory {
  shape: [number, number];
  gradientQuantile: number | null;
  growth: number | null;
  quantile: number | null;
  normalize: 'rows' | null;
  beta2: number;
  weightDecayKind: 'decoupled' | 'cautious';
  coefficients: Triple[];
  lr: number;
  momentum: number;
  nesterov: boolean;
  weightDecay: number;
  lrScale: LrScale;
  initial: number[];
  steps: { grad: number[]; gradientThreshold: number | null; threshold: number | null; param: number[] }[];
  momentumBuffer: number[];
  gradientScale: number | null;
  rowSecondMoment: number[] | null;
}

function orthogonal(
  shape: number[],
  options: RootOptions,
  more: { layout?: 'in-out'; split?: number; stack?: boolean } = {},
) {
  const w = new Parameter({ name: 'w', shape, ...more });
  w.data.set(gaussian(w.size, 1));
  const optimizer = new Root([w], { coefficients: triples, precision, lr: 0.02, ...options });
  const state = () => optimizer.stateOf(w) as OrthogonalState;
  return { w, optimizer, state, [Symbol.dispose]: () => optimizer.dispose() };
}

type Description = Record<string, unknown>;

/** Rewrites a checkpoint as one of version 1, and how its metadata describe each parameter. */
function edit(file: string, change: (description: Description) => Description): void {
  const bytes = readFileSync(file);
  const length = Number(bytes.readBigUInt64LE());
  const header = JSON.parse(bytes.toString('utf8', 8, 8 + length)) as { __metadata__: Record<string, string> };
  const { groups, parameters, ...rest } = header.__metadata__;
  const ofGroups = JSON.parse(groups!) as Description[];
  const described = (JSON.parse(parameters!) as Description[]).map(({ group, ...one }) => {
    return change({ ...one, ...ofGroups[group as number] });
  });
  header.__metadata__ = { ...rest, version: '1', parameters: JSON.stringify(described) };
  const text = Buffer.from(JSON.stringify(header));
  const padded = Buffer.concat([text, Buffer.alloc((8 - (text.length % 8)) % 8, ' ')]);
  const size = Buffer.alloc(8);
  size.writeBigUInt64LE(BigInt(padded.length));
  writeFileSync(file, Buffer.concat([size, padded, bytes.subarray(8 + length)]));
}

describe.each(devicesUnderTest())('on %s', (device) => {
  test.each(golden<Trajectory>('robust_trajectory').cases)(
    'golden $shape gradient quantile $gradientQuantile growth $growth normalize $normalize $weightDecayKind',
    async ({ shape, gradientQuantile, growth, quantile, initial, steps, ...rest }) => {
      const { momentumBuffer, gradientScale, rowSecondMoment, ...settings } = rest;
      const w = new Parameter({ name: 'w', shape, data: Float32Array.from(initial) });
      const gradientThreshold = gradientQuantile === null ? null : { quantile: gradientQuantile, growth };
      const options: MuonOptions = { ...settings, gradientThreshold, device, precision };
      using optimizer =
        quantile === null ? new Muon([w], options) : new Root([w], { ...options, threshold: { quantile } });
      const state = () => optimizer.stateOf(w) as OrthogonalState;
      for (const step of steps) {
        w.grad.set(step.grad);
        await optimizer.step();
        expect(relativeError(w.data, step.param)).toBeLessThan(1e-4);
        for (const key of ['threshold', 'gradientThreshold'] as const) {
          if (step[key] === null) expect(state()[key]).toBeNull();
          else expect(Math.abs(state()[key]! / step[key] - 1)).toBeLessThan(1e-6);
        }
      }
      expect(relativeError(state().momentumBuffer, momentumBuffer)).toBeLessThan(1e-6);
      if (gradientScale !== null) expect(Math.abs(state().gradientScale! / gradientScale - 1)).toBeLessThan(1e-6);
      if (rowSecondMoment === null) expect(state().rowSecondMoment).toBeNull();
      else expect(relativeError(state().rowSecondMoment!, rowSecondMoment)).toBeLessThan(1e-4);
    },
  );

  test.each([
    [1, 1],
    [1, 40],
    [40, 1],
    [13, 210],
    [49, 200],
    [97, 65],
    [130, 48],
  ])('%i × %i against float64, both layouts', (rows, columns) => {
    const next = random(rows + columns);
    for (const layout of ['out-in', 'in-out'] as const) {
      const clip = { quantile: next(), scale: 0.5 + next(), growth: 1.5, mean: null };
      const { quantile, scale, growth } = clip;
      const shape = layout === 'out-in' ? [rows, columns] : [columns, rows];
      const w = new Parameter({ name: 'w', shape, layout, data: gaussian(rows * columns, 1) });
      const gradientThreshold = { quantile, scale, growth };
      const settings = { lr: 0.05, momentum: 0.9, weightDecay: 0.2, beta2: 0.8, coefficients: triples };
      using muon = new Muon([w], {
        ...{ ...settings, gradientThreshold, normalize: 'rows', weightDecayKind: 'cautious', device, precision },
        lrScale: 'spectral',
      });
      const turned = (x: ArrayLike<number>) =>
        layout === 'out-in' ? Float64Array.from(x) : reference.transpose(x, columns, rows);
      const data = turned(w.data);
      const [buffer, moment] = [new Float64Array(w.size), new Float64Array(rows)];
      for (let step = 1; step <= 4; step++) {
        w.grad.set(gaussian(w.size, 10 + step).map((value) => value * (step === 3 ? 50 : 1)));
        muon.stepSync();
        const { clipped } = reference.clipGradient(turned(w.grad), clip);
        const u = reference.momentum(buffer, clipped, settings.momentum, true);
        const x = reference.normalizeRows(
          reference.newtonSchulz(u, rows, columns, triples),
          columns,
          moment,
          settings.beta2,
        );
        const rate = settings.lr * Math.sqrt(Math.max(1, rows / columns));
        data.forEach((value, i) => {
          const decay = value * x[i]! >= 0 ? 1 - settings.lr * settings.weightDecay : 1;
          data[i] = value * decay - rate * x[i]!;
        });
        expect(relativeError(turned(w.data), data)).toBeLessThan(2e-4);
      }
      const state = muon.stateOf(w) as OrthogonalState;
      expect(Math.abs(state.gradientScale! / clip.mean! - 1)).toBeLessThan(1e-5);
      expect(relativeError(state.rowSecondMoment!, moment)).toBeLessThan(1e-4);
    }
  });

  test("AdamW clips a parameter's whole gradient and decays with caution", () => {
    const clip = { quantile: 0.8, scale: 1, growth: 2, mean: null };
    const b = new Parameter({ name: 'b', shape: [7, 11], data: gaussian(77, 1) });
    const { quantile, scale, growth } = clip;
    const settings = { lr: 0.05, betas: [0.9, 0.95] as const, eps: 1e-8, weightDecay: 0.3 };
    const gradientThreshold = { quantile, scale, growth };
    using optimizer = new AdamW([b], { ...settings, gradientThreshold, weightDecayKind: 'cautious', device });
    const [data, first, second] = [Float64Array.from(b.data), new Float64Array(77), new Float64Array(77)];
    for (let step = 1; step <= 5; step++) {
      b.grad.set(gaussian(77, 10 + step).map((value) => value * (step === 4 ? 30 : 1)));
      optimizer.stepSync();
      const { clipped } = reference.clipGradient(b.grad, clip);
      const before = data.slice();
      reference.adamwStep(data, first, second, clipped, step, settings);
      // Where the decay pulls against the update it is left out.
      data.forEach((value, i) => {
        const moved = value - before[i]! * (1 - settings.lr * settings.weightDecay);
        if (before[i]! * -moved < 0) data[i] = before[i]! + moved;
      });
      expect(relativeError(b.data, data)).toBeLessThan(1e-5);
      expect(Math.abs((optimizer.stateOf(b) as AdamWState).gradientScale! / clip.mean! - 1)).toBeLessThan(1e-6);
    }
  });

  test('a spike or a burst moves a matrix no further than the limit', () => {
    using made = orthogonal([30, 40], { gradientThreshold: {}, momentum: 0, device });
    const { w, optimizer, state } = made;
    w.grad.set(gaussian(w.size, 2));
    optimizer.stepSync();
    const usual = state().gradientThreshold!;
    w.grad[7] = 1e30;
    optimizer.stepSync();
    expect(Math.max(...state().momentumBuffer.map(Math.abs))).toBeLessThan(1.1 * usual);
    w.grad.set(gaussian(w.size, 3).map((value) => 1e4 * value));
    optimizer.stepSync();
    expect(state().gradientThreshold).toBeGreaterThan(1000 * usual);
    expect(Math.max(...state().momentumBuffer.map(Math.abs))).toBeLessThan(2.2 * usual);
    expect(state().gradientScale).toBeLessThan(1.3 * usual);
  });

  test('gradients of zeros, of one value, and of denormals', () => {
    for (const [value, expected] of [
      [0, 0],
      [0.25, 0.25],
      [1e-42, Math.fround(1e-42)],
    ] as const) {
      using made = orthogonal([6, 9], { gradientThreshold: {}, normalize: 'rows', device });
      const { w, optimizer, state } = made;
      w.grad.fill(value);
      optimizer.stepSync();
      optimizer.stepSync();
      expect(state().gradientThreshold).toBe(expected);
      expect(w.data.every(Number.isFinite)).toBe(true);
      if (value > 1e-30) expect(state().momentumBuffer[0]! / (1.95 * value)).toBeCloseTo(1, 6);
      else expect(state().momentumBuffer[0]).toBeLessThanOrEqual(2 * value);
    }
    using made = orthogonal([6, 9], { normalize: 'rows', weightDecay: 0, device });
    const { w, optimizer } = made;
    const before = bits(w.data);
    optimizer.stepSync(); // the direction of a zero gradient is zero, with normalization too
    expect(bits(w.data)).toBe(before);
  });

  test('with caution, elements that pull apart from their update keep their value whatever the decay', () => {
    using made = orthogonal([9, 12], { lr: 0.5, weightDecay: 2, weightDecayKind: 'cautious', device });
    const { w, optimizer } = made;
    const before = w.data.slice();
    w.grad.set(gaussian(w.size, 2));
    optimizer.stepSync();
    // 1 − lr·λ is 0: what decays is what the update leaves, what does not decay has moved away from 0.
    const rate = 0.5 * 0.2 * Math.sqrt(12);
    const kept = before.filter((value, i) => Math.abs(w.data[i]!) >= Math.abs(value)).length;
    expect(kept).toBeGreaterThan(20);
    for (const [i, value] of before.entries()) {
      expect(Math.min(Math.abs(w.data[i]!), Math.abs(w.data[i]! - value))).toBeLessThan(1.3 * rate);
    }
  });

  test('a refused step changes no state, whether G or M would not be finite', async () => {
    const options: RootOptions = { gradientThreshold: {}, normalize: 'rows', device };
    using made = orthogonal([20, 30], options);
    const { w, optimizer } = made;
    w.grad.set(gaussian(w.size, 2));
    optimizer.stepSync();
    const before = snapshot(optimizer, [w]);
    for (const bad of [NaN, Infinity, -Infinity]) {
      w.grad[5] = bad; // a clamp would make an infinity finite
      await expectError(() => optimizer.step(), 'ERR_NON_FINITE', '"w"');
      expect(snapshot(optimizer, [w])).toEqual(before);
    }
    w.grad.fill(1.5e38);
    optimizer.paramGroups[0]!.gradientThreshold = { quantile: 0.5, scale: 1, growth: null };
    optimizer.stepSync();
    await expectError(() => optimizer.step(), 'ERR_NON_FINITE', '"w"');
  });

  test('steps are the same bits for any number of threads', () => {
    const options: RootOptions = {
      gradientThreshold: 'robust',
      normalize: 'rows',
      weightDecayKind: 'cautious',
      device,
    };
    const [one, three] = [1, 3].map((threads) => {
      using made = orthogonal([150, 260], { ...options, threads });
      const { w, optimizer } = made;
      for (let step = 0; step < 3; step++) {
        w.grad.set(gaussian(w.size, step));
        optimizer.stepSync();
      }
      return snapshot(optimizer, [w]);
    });
    expect(one).toEqual(three);
  });

  test('a resumed run is the same to the bit, and files of before load', async () => {
    const folder = mkdtempSync(path.join(tmpdir(), 'robust-'));
    const file = path.join(folder, 'run.safetensors');
    try {
      const options: RootOptions = { gradientThreshold: { quantile: 0.95 }, normalize: 'rows', device };
      const run = (steps: number, { w, optimizer }: ReturnType<typeof orthogonal>, from = 0) => {
        for (let step = from; step < steps; step++) {
          w.grad.set(gaussian(w.size, step));
          optimizer.stepSync();
        }
        return snapshot(optimizer, [w]);
      };
      const [through, first, second] = [1, 2, 3].map(() => orthogonal([33, 70], options, { split: 3 }));
      const expected = run(6, through!);
      run(3, first!);
      await first!.optimizer.save(file);
      await second!.optimizer.load(file);
      expect(run(6, second!, 3)).toEqual(expected);

      // A file of before names neither the settings nor the state.
      const plain = orthogonal([33, 70], { gradientThreshold: null, device }, { split: 3 });
      run(2, plain);
      await plain.optimizer.save(file);
      edit(file, ({ layout: _layout, gradientThresholds: _t, gradientScales: _s, normalized: _n, ...one }) => {
        const later = ['gradientThreshold', 'normalize', 'beta2', 'weightDecayKind'];
        const settings = Object.entries(one['settings'] as object).filter(([key]) => !later.includes(key));
        return { ...one, settings: Object.fromEntries(settings) };
      });
      const later = orthogonal([33, 70], options, { split: 3 });
      await later.optimizer.load(file);
      expect(later.state()).toMatchObject({ step: 2, gradientScale: null, rowSecondMoment: null });
      expect(bits(later.state().momentumBuffer)).toBe(bits(plain.state().momentumBuffer));
      // The default of ROOT, which such a file could not name, is no difference either.
      const usual = orthogonal([33, 70], { device }, { split: 3 });
      await usual.optimizer.load(file);
      expect(usual.state()).toMatchObject({ step: 2, gradientScale: null });
      usual.w.grad.set(gaussian(usual.w.size, 2));
      usual.optimizer.stepSync();
      expect(usual.state().gradientScale).toBe(usual.state().gradientThreshold);
      for (const { optimizer } of [through!, first!, second!, plain, later, usual]) optimizer.dispose();
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  test('resumed in a time without normalization, or by AdamW, a run is the same to the bit', async () => {
    const folder = mkdtempSync(path.join(tmpdir(), 'robust-'));
    const file = path.join(folder, 'run.safetensors');
    try {
      // 'rows' for two steps, none for one, then a save, then 'rows' again; and a save right after the last 'rows'.
      for (const saved of [2, 3]) {
        const runs = [0, 1].map(() => orthogonal([10, 14], { normalize: 'rows', device }));
        const take = ({ w, optimizer }: (typeof runs)[number], step: number) => {
          (optimizer.paramGroups[0] as { normalize: unknown }).normalize = step === 2 ? null : 'rows';
          w.grad.set(gaussian(w.size, step));
          optimizer.stepSync();
        };
        for (let step = 0; step < 5; step++) {
          if (step === saved) {
            await runs[0]!.optimizer.save(file);
            await runs[1]!.optimizer.load(file, { options: 'ignore' });
          }
          take(runs[0]!, step);
          if (step >= saved) take(runs[1]!, step);
        }
        const [through, resumed] = runs.map(({ optimizer, w }) => snapshot(optimizer, [w]));
        expect(resumed).toEqual(through);
        for (const one of runs) one.optimizer.dispose();
      }

      const b = [0, 1].map(() => new Parameter({ name: 'b', shape: [50] }));
      const adamw = b.map((one) => new AdamW([one], { gradientThreshold: { quantile: 0.8 }, device }));
      for (let step = 0; step < 6; step++) {
        if (step === 3) {
          await adamw[0]!.save(file);
          await adamw[1]!.load(file);
        }
        for (const i of step < 3 ? [0] : [0, 1]) {
          b[i]!.grad.set(gaussian(50, step));
          adamw[i]!.stepSync();
        }
      }
      expect(snapshot(adamw[1]!, [b[1]!])).toEqual(snapshot(adamw[0]!, [b[0]!]));
      for (const one of adamw) one.dispose();
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  test('files that contradict themselves, or another layout, are refused', async () => {
    const folder = mkdtempSync(path.join(tmpdir(), 'robust-'));
    const file = path.join(folder, 'run.safetensors');
    try {
      const options: RootOptions = { gradientThreshold: {}, normalize: 'rows', device };
      for (const change of [
        { gradientScales: undefined },
        { gradientThresholds: undefined },
        { gradientScales: [null] },
        { gradientScales: [-1] },
        { gradientThresholds: [1, 2] },
        { layout: 'in-out' },
        { layout: 'sideways' },
        { normalized: 'yes' },
      ]) {
        using made = orthogonal([12, 12], options);
        made.w.grad.set(gaussian(144, 1));
        made.optimizer.stepSync();
        await made.optimizer.save(file);
        const before = snapshot(made.optimizer, [made.w]);
        edit(file, (one) => ({ ...one, ...change }));
        await expectError(() => made.optimizer.load(file), 'ERR_CHECKPOINT', /metadata|layout/);
        expect(snapshot(made.optimizer, [made.w])).toEqual(before);
      }
      using without = orthogonal([12, 12], { device });
      without.optimizer.stepSync();
      await without.optimizer.save(file);
      edit(file, (one) => ({ ...one, normalized: true }));
      await expectError(() => without.optimizer.load(file), 'ERR_CHECKPOINT', 'w.rowSecondMoment');
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  test('options change between steps, and thresholds of before a time without are forgotten', () => {
    using made = orthogonal([12, 20], { gradientThreshold: {}, device });
    const { w, optimizer, state } = made;
    const group = optimizer.paramGroups[0] as { gradientThreshold: unknown; normalize: unknown };
    w.grad.set(gaussian(w.size, 2));
    optimizer.stepSync();
    expect(state().gradientScale).toBe(state().gradientThreshold);
    group.gradientThreshold = null;
    group.normalize = 'rows';
    optimizer.stepSync();
    expect(state()).toMatchObject({ gradientThreshold: null, gradientScale: null });
    expect(Math.max(...state().rowSecondMoment!)).toBeGreaterThan(0);
    group.gradientThreshold = {};
    optimizer.stepSync();
    expect(state().gradientScale).toBe(state().gradientThreshold);
  });
});

test.each<[object, string]>([
  [{ gradientThreshold: 'strong' }, 'gradientThreshold'],
  [{ gradientThreshold: { quantile: 1.2 } }, 'gradientThreshold.quantile'],
  [{ gradientThreshold: { growth: 1 } }, 'gradientThreshold.growth'],
  [{ gradientThreshold: { grow: 2 } }, 'grow'],
  [{ normalize: 'columns' }, 'normalize'],
  [{ beta2: 1 }, 'beta2'],
  [{ weightDecayKind: 'soft' }, 'weightDecayKind'],
])('%j is refused', async (options, name) => {
  await expectError(() => orthogonal([2, 3], options), 'ERR_INVALID_ARGUMENT', name);
});

test('layout says which side the outputs are on', async () => {
  const conv = new Parameter({ name: 'conv', shape: [3, 3, 8, 16], layout: 'in-out' });
  expect(conv.matrices).toEqual([{ offset: 0, rows: 72, columns: 16 }]);
  expect(new Parameter({ name: 'conv', shape: [16, 8, 3, 3] }).matrices).toEqual([
    { offset: 0, rows: 16, columns: 72 },
  ]);
  const refused = () => new Parameter({ name: 'qkv', shape: [4, 12], layout: 'in-out', split: 3 });
  await expectError(refused, 'ERR_INVALID_ARGUMENT', 'split of parameter "qkv"');
  const wrong = () => new Parameter({ name: 'w', shape: [4, 12], layout: 'rows' as 'in-out' });
  await expectError(wrong, 'ERR_INVALID_ARGUMENT', 'layout of parameter "w"');
});
