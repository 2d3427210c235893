import {
  type Device,
  devices,
  Muon,
  orthogonalizeSync,
  type OrthogonalState,
  type Precision,
  Root,
  type RootGroup,
  softThresholdSync,
} from '../../lib/index.js';
import {
  alongFewCoordinates,
  bits,
  devicesUnderTest,
  fillGradients,
  gaussian,
  isEmulated,
  parameters,
  random,
  relativeError,
  snapshot,
} from '../support.js';
import { limits, limitsOfLarge, spectra } from './cuda-spectra.js';

const device = devicesUnderTest().find((one) => one !== 'cpu') ?? 'cuda';
const emulated = isEmulated(device);
const onCuda = devicesUnderTest().includes(device) ? describe : describe.skip;

const small: [number, number][] = [
  [1, 1],
  [1, 33],
  [72, 72],
  [65, 200],
  [200, 65],
  [129, 257],
];
const large: [number, number][] = [...small, [1000, 1000], [768, 3072], [3072, 768]];

onCuda('the CUDA backend and the CPU', () => {
  test.each(
    (emulated ? small : large).flatMap(([rows, columns]) =>
      Object.keys(spectra).map((name) => [name, rows, columns] as const),
    ),
  )('orthogonalise alike: %s, %i × %i', (name, rows, columns) => {
    const x = spectra[name]!(rows, columns);
    const expected = orthogonalizeSync(x, [rows, columns], { device: 'cpu' });
    for (const [precision, limit] of rows * columns > 2e6 ? limitsOfLarge : limits) {
      const error = relativeError(orthogonalizeSync(x, [rows, columns], { device, precision }), expected);
      expect({ precision, error: error < limit ? 'small' : error }).toEqual({ precision, error: 'small' });
    }
  });

  // Sums over more than 16384 elements are split.
  test.each([
    [3, 20_000],
    [20_000, 3],
  ])('orthogonalise alike where sums are deep: %i × %i', (rows, columns) => {
    const x = gaussian(rows * columns, 12);
    const expected = orthogonalizeSync(x, [rows, columns], { device: 'cpu', precision: 'float32' });
    for (const [precision, limit] of limits) {
      const result = orthogonalizeSync(x, [rows, columns], { device, precision });
      expect(relativeError(result, expected)).toBeLessThan(limit);
    }
  });

  test.each([0, 0.3, 0.5, 0.9, 0.99, 1])('find the same thresholds to the bit at quantile %f', (quantile) => {
    const shapes = emulated
      ? [
          [1, 1],
          [3, 5],
          [64, 65],
          [130, 31],
        ]
      : [
          [1, 1],
          [3, 5],
          [64, 65],
          [130, 31],
          [1023, 1025],
          [2100, 2050],
        ];
    for (const nesterov of [true, false]) {
      const [there, here] = [parameters('w', shapes), parameters('w', shapes)];
      using onDevice = new Root(there, { device, nesterov, threshold: { quantile, scale: 1.5 } });
      using onHost = new Root(here, { device: 'cpu', nesterov, threshold: { quantile, scale: 1.5 } });
      for (let step = 1; step <= 3; step++) {
        fillGradients(step, there, here);
        onDevice.stepSync();
        onHost.stepSync();
        for (const [i, one] of there.entries()) {
          const [a, b] = [onDevice.stateOf(one), onHost.stateOf(here[i]!)] as [OrthogonalState, OrthogonalState];
          expect(a.thresholds).toEqual(b.thresholds);
          expect(bits(a.momentumBuffer)).toBe(bits(b.momentumBuffer));
        }
      }
    }
  });

  const awkward: Record<string, Float32Array> = {
    'all equal': new Float32Array(4097).fill(-2.5),
    'all zero': new Float32Array(1000),
    ties: Float32Array.from({ length: 5000 }, (_, i) => ((i * 7) % 11) - 5),
    denormals: Float32Array.from({ length: 3000 }, (_, i) => (i - 1500) * 1e-43),
    'denormals among others': gaussian(3000).map((value, i) => (i % 2 === 0 ? value : value * 1e-40)),
    'neighbouring floats': Float32Array.from(
      new Uint32Array(3000)
        .map((_, i) => 0x3f7ff000 + 3 * i)
        .reduce<number[]>((list, word) => list.concat(new Float32Array(Uint32Array.of(word).buffer)[0]!), []),
    ),
    'the whole range': Float32Array.from({ length: 4001 }, (_, i) => (i % 2 === 0 ? 1 : -1) * 2 ** ((i - 2200) / 18)),
  };
  test.each(Object.entries(awkward))('split alike to the bit: %s', (_, x) => {
    for (const quantile of [0, 0.1, 0.5, 0.77, 0.999, 1]) {
      const [there, here] = [device, 'cpu' as const].map((where) =>
        softThresholdSync(x, { quantile, scale: 0.75, device: where }),
      );
      expect([there!.threshold, bits(there!.base), bits(there!.outliers)]).toEqual([
        here!.threshold,
        bits(here!.base),
        bits(here!.outliers),
      ]);
    }
  });

  test.each(limits)('train alike in %s', (precision, limit) => {
    const shapes = [[40, 96], [40, 96], [96, 40], [33, 17], [6, 3, 2, 2], [5], []];
    const [there, here] = [parameters('w', shapes), parameters('w', shapes)];
    using onDevice = new Root(there, { device, precision, lr: 0.05 });
    using onHost = new Root(here, { device: 'cpu', lr: 0.05 });
    for (let step = 1; step <= 5; step++) {
      fillGradients(step, there, here);
      onDevice.stepSync();
      onHost.stepSync();
    }
    there.forEach((one, i) => {
      expect(relativeError(one.data, here[i]!.data)).toBeLessThan(limit);
    });
  });
});

/** Matrices of few directions that lie along few coordinates, and their ranks. Equal elements round equally. */
function concentrated([rows, columns]: readonly [number, number]): [name: string, rank: number, x: Float32Array][] {
  const next = random(rows + columns);
  const matrices: [string, number, Float32Array][] = [];
  for (const along of [1, 16]) {
    for (const count of [1, 4]) {
      for (const spread of [0, 2]) {
        const x = alongFewCoordinates([rows, columns], { count, along, spread, next });
        matrices.push([`${count} directions along ${along} coordinates, spread ${spread}`, count, x]);
      }
    }
  }
  const ones = (height: number, width: number) =>
    Float32Array.from({ length: rows * columns }, (_, i) =>
      Math.floor(i / columns) < height && i % columns < width ? 1 : 0,
    );
  for (const [height, width] of [
    [2, 2],
    [7, 5],
    [1, columns],
    [rows, 1],
  ] as const) {
    matrices.push([`a block of ${height} × ${width} ones`, 1, ones(height, width)]);
  }
  const row = new Float32Array(rows * columns);
  row.set(gaussian(columns, 11), 3 * columns);
  matrices.push(['one row', 1, row]);
  const faint = ones(1, 1);
  for (let i = 1; i < 8; i++) faint[i * columns + i] = 1e-3;
  matrices.push(['an entry and seven small ones', 8, faint]);
  return matrices;
}

onCuda('directions along few coordinates stay bounded', () => {
  const modes: [Precision, boolean][] = [
    ['float16', true],
    ['float16', false],
    ['bfloat16', true],
  ];
  test.each(
    modes.flatMap((mode) =>
      [
        [64, 72],
        [72, 64],
        [65, 200],
      ].map(([rows = 0, columns = 0]) => [...mode, rows, columns] as const),
    ),
  )('in %s, compensated: %s, %i × %i', (precision, compensated, rows, columns) => {
    for (const [name, rank, x] of concentrated([rows, columns])) {
      for (const coefficients of ['adaptive', 'muon', 'polar-express'] as const) {
        const result = orthogonalizeSync(x, [rows, columns], { coefficients, device, precision, compensated });
        const norm = Math.hypot(...result) / Math.sqrt(rank);
        const largest = result.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
        expect({
          name,
          coefficients,
          norm: norm <= 1.35 ? 'bounded' : norm,
          largest: largest <= 1.35 ? 'bounded' : largest,
        }).toEqual({ name, coefficients, norm: 'bounded', largest: 'bounded' });
      }
    }
  });
});

onCuda('a step that is replayed', () => {
  test('follows every setting as it is written, and no other', () => {
    const shapes = [[24, 48], [24, 48], [30, 12], [7]];
    const changes: (() => Partial<Omit<RootGroup, 'params' | 'algorithm'>>)[] = [
      () => ({}),
      () => ({ lr: 0.003 }),
      () => ({ momentum: 0.5, weightDecay: 0.3 }),
      () => ({ threshold: { quantile: 0.5, scale: 2 } }),
      () => ({ threshold: null }),
      () => ({ nesterov: false }),
      () => ({ coefficients: 'quintic' }),
      () => ({ steps: 3 }),
      () => ({ threshold: { quantile: 0.9, scale: 1 }, lrScale: 'none' }),
      () => ({ lr: 0, weightDecay: 0 }),
    ];
    const [there, here] = [parameters('w', shapes), parameters('w', shapes)];
    using onDevice = new Root(there, { device, precision: 'float32' });
    using onHost = new Root(here, { device: 'cpu' });
    changes.forEach((change, step) => {
      for (const { paramGroups } of [onDevice, onHost]) Object.assign(paramGroups[0]!, change());
      for (const { paramGroups } of [onDevice, onHost]) paramGroups[1]!.lr = 1e-3 * (step + 1);
      for (let again = 0; again < 2; again++) {
        fillGradients(10 * step + again, there, here);
        onDevice.stepSync();
        onHost.stepSync();
        there.forEach((one, i) => {
          expect(relativeError(one.data, here[i]!.data)).toBeLessThan(1e-5);
          const [a, b] = [onDevice.stateOf(one), onHost.stateOf(here[i]!)];
          if ('thresholds' in a) expect(a).toMatchObject({ thresholds: (b as OrthogonalState).thresholds });
        });
      }
    });
  });

  test('is the step that an optimizer of its own would take', () => {
    const shapes = [[24, 48], [20, 20], [9]];
    const [kept, renewed] = [parameters('w', shapes), parameters('w', shapes)];
    using whole = new Muon(kept, { device, momentum: 0 });
    for (let step = 1; step <= 3; step++) {
      fillGradients(step, kept, renewed);
      whole.stepSync();
      using once = new Muon(renewed.slice(0, 2), { device, momentum: 0 });
      once.stepSync();
      for (const i of [0, 1]) expect(bits(kept[i]!.data)).toBe(bits(renewed[i]!.data));
    }
  });

  test('goes on after one that was left out', () => {
    const [bad, good] = [parameters('w', [[12, 20], [5]]), parameters('w', [[12, 20], [5]])];
    using withGap = new Root(bad, { device, nonFinite: 'skip' });
    using without = new Root(good, { device });
    for (let step = 1; step <= 3; step++) {
      fillGradients(step, bad, good);
      bad[step % 2]!.grad[3] = NaN;
      const before = snapshot(withGap, bad);
      expect(withGap.stepSync()).toMatchObject({ applied: false, step: step - 1 });
      expect(snapshot(withGap, bad)).toEqual(before);
      fillGradients(step, bad);
      withGap.stepSync();
      without.stepSync();
      expect(snapshot(withGap, bad)).toEqual(snapshot(without, good));
    }
  });
});

const two = devices().cuda.devices.length > 1 ? onCuda : describe.skip;
two('two devices', () => {
  test('step side by side and alike', async () => {
    const shapes = [[40, 64], [64, 40], [11]];
    const models = [0, 1, 0, 1].map(() => parameters('w', shapes));
    const optimizers = models.map((model, i) => new Root(model, { device: `cuda:${i % 2}` as Device }));
    for (let step = 1; step <= 3; step++) {
      fillGradients(step, ...models);
      await Promise.all(optimizers.map((optimizer) => optimizer.step()));
    }
    expect(new Set(models.map((model, i) => snapshot(optimizers[i]!, model).join())).size).toBe(1);
    optimizers.forEach((optimizer) => {
      optimizer.dispose();
    });
  });
});
