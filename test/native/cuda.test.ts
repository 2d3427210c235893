import { totalmem } from 'node:os';
import {
  type Device,
  devices,
  Muon,
  orthogonalizeSync,
  type OrthogonalState,
  Parameter,
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

const device = devicesUnderTest().find((one) => one !== 'cpu') ?? 'cuda';
const emulated = isEmulated(device);
const onCuda = devicesUnderTest().includes(device) ? describe : describe.skip;
const onGpu = emulated ? describe.skip : onCuda;

type Fill = (rows: number, columns: number) => Float32Array;

const spectra: Record<string, Fill> = {
  Gaussian: (rows, columns) => gaussian(rows * columns, rows + columns),
  'heavy-tailed': (rows, columns) => gaussian(rows * columns, 3).map((value) => value ** 3),
  'low rank and noise': (rows, columns) => {
    const [left, right, noise] = [gaussian(rows * 4, 5), gaussian(4 * columns, 6), gaussian(rows * columns, 7)];
    return noise.map((value, i) => {
      const [row, column] = [Math.floor(i / columns), i % columns];
      let sum = 0.2 * value;
      for (let k = 0; k < 4; k++) sum += left[row * 4 + k]! * right[k * columns + column]!;
      return sum;
    });
  },
  decaying: (rows, columns) =>
    reflected(
      gaussian(rows * columns, 8).map((value, i) => value * (Math.floor(i / columns) + 1) ** -0.8),
      rows,
      columns,
    ),
};

/** (I − 2vvᵀ)·X, which mixes the rows and keeps the singular values. */
function reflected(x: Float32Array, rows: number, columns: number): Float32Array {
  const v = gaussian(rows, 9);
  const norm = Math.hypot(...v);
  const sums = new Float64Array(columns);
  x.forEach((value, i) => (sums[i % columns]! += (v[Math.floor(i / columns)]! / norm) * value));
  return x.map((value, i) => value - (2 * v[Math.floor(i / columns)]! * sums[i % columns]!) / norm);
}

/** The largest errors relative to the CPU's result, in the Frobenius norm. */
const limits: [Precision, number][] = [
  ['float32', 1e-5],
  ['float16', 5e-3],
  ['bfloat16', 3e-2],
];

const small: [number, number][] = [
  [1, 1],
  [1, 33],
  [72, 72],
  [65, 200],
  [200, 65],
  [129, 257],
];
const large: [number, number][] = [...small, [1000, 1000], [768, 3072], [3072, 768], [2048, 2048], [2049, 8191]];

onCuda('the CUDA backend and the CPU', () => {
  test.each(
    (emulated ? small : large).flatMap(([rows, columns]) =>
      Object.keys(spectra).map((name) => [name, rows, columns] as const),
    ),
  )('orthogonalise alike: %s, %i × %i', (name, rows, columns) => {
    const x = spectra[name]!(rows, columns);
    const expected = orthogonalizeSync(x, [rows, columns], { device: 'cpu' });
    for (const [precision, limit] of limits) {
      const error = relativeError(orthogonalizeSync(x, [rows, columns], { device, precision }), expected);
      expect({ precision, error: error < limit ? 'small' : error }).toEqual({ precision, error: 'small' });
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
          [5000, 5000],
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

onGpu("on a GPU, at sizes out of the emulator's reach", () => {
  const minutes = 60_000;

  test(
    '4096 × 14336',
    () => {
      for (const fill of Object.values(spectra)) {
        const x = fill(4096, 14336);
        const expected = orthogonalizeSync(x, [4096, 14336], { device: 'cpu' });
        for (const [precision, limit] of limits) {
          expect(relativeError(orthogonalizeSync(x, [4096, 14336], { device, precision }), expected)).toBeLessThan(
            limit,
          );
        }
      }
    },
    30 * minutes,
  );

  test(
    'a batch of 2048 × 8192',
    () => {
      const shapes = Array.from({ length: 12 }, () => [2048, 8192]);
      const model = parameters('w', shapes);
      const twin = new Parameter({ name: 'twin', shape: [2048, 8192], data: model[7]!.data.slice() });
      using together = new Root(model, { device });
      using alone = new Root([twin], { device });
      using onHost = new Root([new Parameter({ name: 'host', shape: [2048, 8192], data: model[7]!.data.slice() })], {
        device: 'cpu',
      });
      fillGradients(1, model);
      twin.grad.set(model[7]!.grad);
      onHost.paramGroups[0]!.params[0]!.grad.set(twin.grad);
      together.stepSync();
      alone.stepSync();
      onHost.stepSync();
      expect(bits(model[7]!.data)).toBe(bits(twin.data));
      const { data } = onHost.paramGroups[0]!.params[0]!;
      expect(relativeError(twin.data, data)).toBeLessThan(5e-3);
      expect(together.stateOf(model[7]!)).toMatchObject({
        thresholds: (onHost.stateOf(onHost.paramGroups[0]!.params[0]!) as OrthogonalState).thresholds,
      });
    },
    10 * minutes,
  );

  // The test needs data, gradients and momentum of 2.2e9 elements on the device and on the host.
  const roomy = (devices().cuda.devices[0]?.memoryBytes ?? 0) > 36e9 && totalmem() > 36e9;
  (roomy ? test : test.skip)(
    'more than 2^31 elements in all',
    () => {
      const shape = [4096, 14336];
      const grad = gaussian(4096 * 14336);
      // Gradients may share memory. Data may not.
      const model = Array.from({ length: 37 }, (_, i) => new Parameter({ name: `w${i}`, shape, grad }));
      using optimizer = new Root(model, { device, weightDecay: 0 });
      optimizer.stepSync();
      const [first] = model.map((one) => bits(one.data));
      for (const one of model) expect(bits(one.data)).toBe(first);
      const expected = orthogonalizeSync(softThresholdSync(grad, { device: 'cpu' }).base, shape, { device: 'cpu' });
      const rate = -0.02 * 0.2 * Math.sqrt(14336);
      expect(
        relativeError(
          model[36]!.data,
          expected.map((value) => rate * value),
        ),
      ).toBeLessThan(5e-3);
    },
    30 * minutes,
  );

  test(
    'more than 2^24 elements in a matrix of few rows, and in one of few columns',
    () => {
      for (const [rows, columns] of [
        [3, 7_000_001],
        [7_000_001, 3],
      ] as const) {
        const x = gaussian(rows * columns);
        const expected = orthogonalizeSync(x, [rows, columns], { device: 'cpu' });
        for (const [precision, limit] of limits) {
          expect(relativeError(orthogonalizeSync(x, [rows, columns], { device, precision }), expected)).toBeLessThan(
            limit,
          );
        }
        expect(softThresholdSync(x, { device }).threshold).toBe(softThresholdSync(x, { device: 'cpu' }).threshold);
      }
    },
    10 * minutes,
  );
});
