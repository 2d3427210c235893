import {
  newtonSchulzCoefficients,
  orthogonalize,
  orthogonalizeSync,
  Parameter,
  Root,
  softThreshold,
  softThresholdSync,
} from '../lib/index.js';
import * as reference from './reference.js';
import { bits, devicesUnderTest, expectError, gaussian, golden, random, relativeError } from './support.js';

/** The precision of results that are compared with float64 here. test/native has the tests of the half precisions. */
const precision = 'float32' as const;

interface NewtonSchulzCase {
  shape: [number, number];
  kind: string;
  preset: string;
  coefficients: [number, number, number][];
  input: number[];
  output: number[];
}

interface SoftThresholdCase {
  shape: number[];
  quantile: number;
  input: number[];
  threshold: number;
  base: number[];
  outliers: number[];
}

describe.each(devicesUnderTest())('orthogonalize on %s', (device) => {
  test.each(golden<NewtonSchulzCase>('newton_schulz').cases)(
    'golden $shape $kind $preset',
    async ({ shape, kind, coefficients, input, output }) => {
      const x = Float32Array.from(input);
      const result = await orthogonalize(x, shape, { coefficients, device, precision });
      // The Gram form loses digits where the spectrum ends early.
      expect(relativeError(result, output)).toBeLessThan(kind === 'low_rank' ? 1e-3 : 1e-4);
      expect(bits(orthogonalizeSync(x, shape, { coefficients, device, precision }))).toBe(bits(result));
      expect(x).toEqual(Float32Array.from(input));
    },
  );

  const shapes: [number, number][] = [
    [1, 1],
    [1, 7],
    [7, 1],
    [2, 3],
    [3, 2],
    [8, 8],
    [15, 17],
    [31, 31],
    [47, 49],
    [48, 48],
    [49, 200],
    [200, 49],
    [64, 80],
    [65, 193],
    [97, 129],
    [193, 385],
    [384, 192],
    [1, 5000],
    [5000, 1],
    [5, 2049],
    [257, 257],
    [300, 1300],
  ];
  test.each(shapes)(
    '%i × %i against float64',
    (rows, columns) => {
      const x = gaussian(rows * columns, rows + columns);
      const presets =
        rows * columns > 50_000
          ? (['polar-express'] as const)
          : (['muon', 'polar-express', 'quintic', 'cubic5', 'deepseek-v4'] as const);
      for (const coefficients of presets) {
        const expected = reference.newtonSchulz(
          x,
          rows,
          columns,
          newtonSchulzCoefficients([rows, columns], coefficients),
        );
        // At a singular value of 1 these two amplify rounding more than the others.
        expect(
          relativeError(orthogonalizeSync(x, [rows, columns], { coefficients, device, precision }), expected),
        ).toBeLessThan(['cubic5', 'deepseek-v4'].includes(coefficients) ? 3e-4 : 1e-4);
      }
    },
    60_000,
  );

  test.each([
    [40, 160, 4],
    [160, 40, 4],
    [64, 64, 3],
    [33, 200, 1],
  ])('%i × %i of rank %i against float64', (rows, columns, rank) => {
    const x = lowRank(rows, columns, rank);
    for (const [coefficients, steps] of [
      ['muon', 5],
      ['polar-express', 5],
      ['polar-express', 8],
      ['quintic', 5],
      ['cubic5', 5],
      ['cans', 5],
    ] as const) {
      // A singular value of 1 is where cans is steepest: its composition amplifies float32's rounding a thousandfold.
      if (coefficients === 'cans' && rank === 1) continue;
      const expected = reference.newtonSchulz(
        x,
        rows,
        columns,
        newtonSchulzCoefficients([rows, columns], coefficients, steps),
      );
      expect(
        relativeError(orthogonalizeSync(x, [rows, columns], { coefficients, steps, device, precision }), expected),
      ).toBeLessThan(1e-3);
    }
  });

  test.each([
    [24, 24],
    [20, 60],
    [60, 20],
  ])('a multiple of a %i × %i matrix gives the same', (rows, columns) => {
    const x = gaussian(rows * columns);
    const result = orthogonalizeSync(x, [rows, columns], { device, precision });
    // The factors are not much less than 1, because the normalisation adds 1e-7 to the norm.
    for (const factor of [0.1, 7, 1e10, 2 ** 100]) {
      const scaled = orthogonalizeSync(
        x.map((value) => value * factor),
        [rows, columns],
        { device, precision },
      );
      expect(relativeError(scaled, result)).toBeLessThan(1e-4);
    }
  });

  test.each([
    [24, 24],
    [20, 60],
    [37, 101],
  ])('commutes with transposition and permutation, %i × %i', (rows, columns) => {
    const x = gaussian(rows * columns);
    const result = orthogonalizeSync(x, [rows, columns], { device, precision });
    const transposed = orthogonalizeSync(Float32Array.from(reference.transpose(x, rows, columns)), [columns, rows], {
      device,
      precision,
    });
    expect(relativeError(transposed, reference.transpose(result, rows, columns))).toBeLessThan(1e-4);

    const [byRow, byColumn] = [permutation(rows, 2), permutation(columns, 3)];
    const permute = (matrix: Float32Array) =>
      matrix.map((_, i) => matrix[byRow[Math.floor(i / columns)]! * columns + byColumn[i % columns]!]!);
    expect(
      relativeError(orthogonalizeSync(permute(x), [rows, columns], { device, precision }), permute(result)),
    ).toBeLessThan(1e-4);
  });

  test('refuses coefficients that diverge', async () => {
    const x = gaussian(9);
    for (const coefficients of [
      [100, 100, 100],
      [
        [3, 0, 0],
        [4, 0, 0],
      ],
    ] as const) {
      await expectError(
        () => orthogonalizeSync(x, [3, 3], { coefficients, device, precision }),
        'ERR_INVALID_ARGUMENT',
        /within 10, got ones that take/,
      );
      await expectError(
        () => orthogonalize(x, [3, 3], { coefficients, device, precision }),
        'ERR_INVALID_ARGUMENT',
        /within 10, got ones that take/,
      );
      expect(
        () => new Root([new Parameter({ name: 'w', shape: [3, 3] })], { coefficients, device, precision }),
      ).toThrow(/within 10/);
    }
    const published = { coefficients: 'paper', device, precision } as const;
    const w = new Parameter({ name: 'w', shape: [2048, 2048] });
    new Root([w], { ...published, steps: 5 }).dispose();
    expect(() => new Root([w], { ...published, steps: 6 })).toThrow(/take some to 679 in 6 iterations/);
    // These coefficients are bounded at every point of a fine grid, and unbounded between two of its points.
    const coefficients = Array.from({ length: 16 }, () => [3.4903594661306383 + 1e-8, -4.8224, 2.1095] as const);
    expect(() => orthogonalizeSync(x, [3, 3], { coefficients, device, precision })).toThrow(/within 10/);
  });

  test('maps zero to zero', () => {
    expect(orthogonalizeSync(new Float32Array(12), [3, 4], { device, precision })).toEqual(new Float32Array(12));
  });

  test.each([
    [40, 60, 0.01],
    [40, 160, 0.001],
    [160, 40, 0.001],
  ])('singular values of a %i × %i result are near 1', (rows, columns, tolerance) => {
    const values = reference.singularValues(
      orthogonalizeSync(gaussian(rows * columns), [rows, columns], { device, precision, steps: 7 }),
      rows,
      columns,
    );
    expect(values[0]).toBeLessThan(1 + tolerance);
    expect(values.at(-1)).toBeGreaterThan(1 - tolerance);
  });

  test('survives values whose squares overflow or vanish in float32', () => {
    const x = gaussian(20 * 30);
    const result = orthogonalizeSync(x, [20, 30], { device, precision });
    const huge = x.map((value) => value * 1e37);
    expect(relativeError(orthogonalizeSync(huge, [20, 30], { device, precision }), result)).toBeLessThan(1e-4);
    const tiny = orthogonalizeSync(
      x.map((value) => value * 1e-30),
      [20, 30],
      { device, precision },
    );
    expect(tiny.every(Number.isFinite)).toBe(true);
  });

  test.each<[string, number[], object, [number, number, number][]]>([
    ['a convolution is [shape[0], rest]', [6, 3, 2, 2], {}, [[0, 6, 12]]],
    [
      'split in three',
      [12, 10],
      { split: 3 },
      [
        [0, 4, 10],
        [40, 4, 10],
        [80, 4, 10],
      ],
    ],
    [
      'split by rows',
      [12, 10],
      { split: [8, 2, 2] },
      [
        [0, 8, 10],
        [80, 2, 10],
        [100, 2, 10],
      ],
    ],
    [
      'a stack',
      [2, 4, 6],
      { stack: true },
      [
        [0, 4, 6],
        [24, 4, 6],
      ],
    ],
    [
      'a split stack',
      [2, 4, 6],
      { stack: true, split: 2 },
      [
        [0, 2, 6],
        [12, 2, 6],
        [24, 2, 6],
        [36, 2, 6],
      ],
    ],
  ])('%s', (_, shape, layout, matrices) => {
    const x = gaussian(shape.reduce((a, b) => a * b));
    const result = orthogonalizeSync(x, shape, { device, precision, ...layout });
    for (const [offset, rows, columns] of matrices) {
      const [from, to] = [offset, offset + rows * columns];
      expect(bits(result.slice(from, to))).toBe(
        bits(orthogonalizeSync(x.slice(from, to), [rows, columns], { device, precision })),
      );
    }
  });

  test('reads SharedArrayBuffers and views into a buffer', () => {
    const x = gaussian(24);
    const shared = new Float32Array(new SharedArrayBuffer(200), 8, 24);
    shared.set(x);
    expect(bits(orthogonalizeSync(shared, [4, 6], { device, precision }))).toBe(
      bits(orthogonalizeSync(x, [4, 6], { device, precision })),
    );
  });

  test('writes to out, which may be x itself', async () => {
    for (const [shape, layout] of [
      [[20, 30], {}],
      [[30, 7], {}],
      [[3, 100, 140], { stack: true, split: 2 }],
    ] as const) {
      const x = gaussian(shape.reduce<number>((a, b) => a * b, 1));
      const expected = orthogonalizeSync(x, shape, { device, precision, ...layout });
      const halves = new Float32Array(2 * x.length); // next to each other, and apart
      const [input, out] = [halves.subarray(0, x.length), halves.subarray(x.length)];
      input.set(x);
      expect(orthogonalizeSync(input, shape, { device, precision, ...layout, out })).toBe(out);
      expect(bits(out)).toBe(bits(expected));
      expect(bits(input)).toBe(bits(x));
      expect(await orthogonalize(input, shape, { device, precision, ...layout, out: input })).toBe(input);
      expect(bits(input)).toBe(bits(expected));
    }
  });

  test('says so where out was transferred meanwhile', async () => {
    const out = new Float32Array(256 * 256);
    const pending = orthogonalize(gaussian(out.length), [256, 256], { device, precision, out });
    const moved = structuredClone(out, { transfer: [out.buffer] }); // held until the call has ended
    await expectError(() => pending, 'ERR_INVALID_ARGUMENT', /stay attached/);
    expect(moved).toHaveLength(256 * 256);
  });

  test('does not remember the calls before', async () => {
    const cases = [
      [150, 40],
      [40, 150],
      [5, 7],
      [100, 100],
    ].map(([m, n]) => ({ shape: [m!, n!], x: gaussian(m! * n!, m), threads: 2 }));
    const results = cases.map(({ x, shape, threads }) =>
      bits(orthogonalizeSync(x, shape, { device, precision, threads })),
    );
    softThresholdSync(gaussian(5000), { device, threads: 2 });
    expect(() => orthogonalizeSync(Float32Array.of(NaN), [1, 1], { device, precision, threads: 2 })).toThrow(/finite/);
    const pending = cases.map(({ x, shape, threads }) => orthogonalize(x, shape, { device, precision, threads }));
    for (const threads of [2, 1, 2]) {
      for (const [i, { x, shape }] of [...cases.entries()].reverse()) {
        expect(bits(orthogonalizeSync(x, shape, { device, precision, threads }))).toBe(results[i]);
      }
    }
    expect((await Promise.all(pending)).map(bits)).toEqual(results);
  });

  test('leaves out as it was where x is refused', async () => {
    const out = gaussian(12);
    const before = out.slice();
    await expectError(
      () =>
        orthogonalizeSync(
          Float32Array.from(before, (value, i) => (i === 7 ? NaN : value)),
          [3, 4],
          { device, precision, out },
        ),
      'ERR_NON_FINITE',
      /index 7$/,
    );
    expect(bits(out)).toBe(bits(before));
  });

  test('is the same for any number of threads', () => {
    for (const [rows, columns] of [
      [64, 64],
      [193, 385],
      [300, 150],
    ] as const) {
      const x = gaussian(rows * columns);
      const results = [1, 2, 3, 0].map((threads) =>
        bits(orthogonalizeSync(x, [rows, columns], { device, precision, threads })),
      );
      expect(new Set(results).size).toBe(1);
    }
  });

  test('calls side by side do not disturb each other', async () => {
    const inputs = [1, 2, 3, 4].map((seed) => gaussian(120 * 130, seed));
    const results = await Promise.all(inputs.map((x) => orthogonalize(x, [120, 130], { device, precision })));
    results.forEach((result, i) => {
      expect(bits(result)).toBe(bits(orthogonalizeSync(inputs[i]!, [120, 130], { device, precision })));
    });
  });
});

describe('orthogonalize refuses', () => {
  const x = gaussian(12);
  const halves = gaussian(24);
  const detached = new Float32Array(12);
  structuredClone(detached.buffer, { transfer: [detached.buffer] });
  const resizable = new Float32Array(
    new (ArrayBuffer as new (length: number, options: object) => ArrayBuffer)(48, { maxByteLength: 96 }),
  );
  test.each<
    [
      string,
      unknown,
      unknown,
      unknown,
      'ERR_INVALID_ARGUMENT' | 'ERR_SHAPE_MISMATCH' | 'ERR_NON_FINITE' | 'ERR_DEVICE_UNAVAILABLE',
      RegExp,
    ]
  >([
    [
      'an array',
      [1, 2],
      [1, 2],
      {},
      'ERR_INVALID_ARGUMENT',
      /^Expected x to be a Float32Array of length 2, got \[1, 2\]$/,
    ],
    ['a Float64Array', new Float64Array(2), [1, 2], {}, 'ERR_INVALID_ARGUMENT', /got Float64Array of length 2$/],
    [
      'a wrong length',
      x,
      [3, 5],
      {},
      'ERR_SHAPE_MISMATCH',
      /^Expected x to be of length 15, got Float32Array of length 12$/,
    ],
    ['a detached array', detached, [3, 4], {}, 'ERR_INVALID_ARGUMENT', /detached/],
    ['a resizable buffer', resizable, [3, 4], {}, 'ERR_INVALID_ARGUMENT', /resizable ArrayBuffer$/],
    [
      'one dimension',
      x,
      [12],
      {},
      'ERR_INVALID_ARGUMENT',
      /^Expected shape to be of at least 2 dimensions, got \[12\]$/,
    ],
    [
      'a shape of zeros',
      x,
      [0, 4],
      {},
      'ERR_INVALID_ARGUMENT',
      /^Expected shape to be a list of positive integers, got \[0, 4\]$/,
    ],
    ['a shape that is no list', x, 12, {}, 'ERR_INVALID_ARGUMENT', /got 12$/],
    ['NaN', Float32Array.of(1, NaN), [1, 2], {}, 'ERR_NON_FINITE', /^Expected x to be finite, got NaN at index 1$/],
    [
      'Infinity',
      Float32Array.of(-Infinity, 1),
      [1, 2],
      {},
      'ERR_NON_FINITE',
      /^Expected x to be finite, got -Infinity at index 0$/,
    ],
    ['an unknown preset', x, [3, 4], { coefficients: 'moon' }, 'ERR_INVALID_ARGUMENT', /"muon", "paper".*got "moon"$/],
    [
      'an out that is no Float32Array',
      x,
      [3, 4],
      { out: [] },
      'ERR_INVALID_ARGUMENT',
      /^Expected out to be a Float32Array of length 12, got \[\]$/,
    ],
    [
      'a short out',
      x,
      [3, 4],
      { out: new Float32Array(11) },
      'ERR_SHAPE_MISMATCH',
      /^Expected out to be of length 12, got Float32Array of length 11$/,
    ],
    [
      'an out that overlaps x',
      halves.subarray(0, 12),
      [3, 4],
      { out: halves.subarray(11, 23) },
      'ERR_INVALID_ARGUMENT',
      /^Expected out to be x or to share no memory with it/,
    ],
    [
      'no steps',
      x,
      [3, 4],
      { steps: 0 },
      'ERR_INVALID_ARGUMENT',
      /^Expected steps to be an integer in \[1, 100\], got 0$/,
    ],
    [
      'an unknown device',
      x,
      [3, 4],
      { device: 'gpu' },
      'ERR_INVALID_ARGUMENT',
      /"auto", "cpu", "cuda", "cuda:N", got "gpu"$/,
    ],
    [
      'a missing device',
      x,
      [3, 4],
      { device: 'cuda:99' },
      'ERR_DEVICE_UNAVAILABLE',
      /^Expected device "cuda:99" to be available: ./,
    ],
    [
      'negative threads',
      x,
      [3, 4],
      { threads: -1 },
      'ERR_INVALID_ARGUMENT',
      /^Expected threads to be an integer in \[0, 1024\], got -1$/,
    ],
    [
      'a misspelt option',
      x,
      [3, 4],
      { coeficients: 'muon' },
      'ERR_INVALID_ARGUMENT',
      /^Unknown option "coeficients"; did you mean "coefficients"\?$/,
    ],
    [
      'options that are none',
      x,
      [3, 4],
      null,
      'ERR_INVALID_ARGUMENT',
      /^Expected the options to be an object, got null$/,
    ],
    [
      'a split that does not divide',
      x,
      [3, 4],
      { split: 2 },
      'ERR_INVALID_ARGUMENT',
      /a divisor of the 3 rows, got 2$/,
    ],
    [
      'a stack of two dimensions',
      x,
      [3, 4],
      { stack: true },
      'ERR_INVALID_ARGUMENT',
      /at least 3 dimensions with stack, got \[3, 4\]$/,
    ],
  ])('%s', async (_, input, shape, options, code, message) => {
    const call = (run: typeof orthogonalize | typeof orthogonalizeSync) => () =>
      run(input as Float32Array, shape as number[], options as object);
    await expectError(call(orthogonalize), code, message);
    await expectError(call(orthogonalizeSync), code, message);
  });
});

describe.each(devicesUnderTest())('softThreshold on %s', (device) => {
  test.each(golden<SoftThresholdCase>('soft_threshold').cases)(
    'golden $shape at $quantile',
    async ({ quantile, input, threshold, base, outliers }) => {
      const x = Float32Array.from(input);
      const result = await softThreshold(x, { quantile, device });
      expectWithinUlp(result.threshold, threshold);
      base.forEach((value, i) => {
        expect(result.base[i]).toBeCloseTo(value, 5);
      });
      outliers.forEach((value, i) => {
        expect(result.outliers[i]).toBeCloseTo(value, 5);
      });
      expectSplit(x, result);
      const sync = softThresholdSync(x, { quantile, device });
      expect([sync.threshold, bits(sync.base), bits(sync.outliers)]).toEqual([
        result.threshold,
        bits(result.base),
        bits(result.outliers),
      ]);
    },
  );

  const lattice = Float32Array.from({ length: 1000 }, (_, i) => ((i * 7) % 11) - 5);
  const bimodal = gaussian(5000).map((value, i) => (i % 9 === 0 ? value * 1e20 : value * 1e-20));
  test.each<[string, Float32Array]>([
    ['one value', Float32Array.of(-3)],
    ['two values', Float32Array.of(-3, 4)],
    ['ties', lattice],
    ['all equal', new Float32Array(100).fill(-2.5)],
    ['all zero', new Float32Array(100)],
    ['negative zeros', Float32Array.of(-0, 0, -1, 2, -0)],
    ['mostly zero', gaussian(1000).map((value, i) => (i % 20 === 0 ? value : 0))],
    ['denormals', Float32Array.from({ length: 200 }, (_, i) => (i - 100) * 1e-42)],
    ['denormals among others', gaussian(200).map((value, i) => (i % 2 === 0 ? value : value * 1e-40))],
    [
      'the largest floats',
      gaussian(200).map((value, i) => (i % 2 === 0 ? value : Math.sign(value) * 3.4028234663852886e38)),
    ],
    [
      '1e38',
      gaussian(300)
        .map((value) => value * 1e38)
        .map((value) => (Number.isFinite(value) ? value : 1e38)),
    ],
    ['two modes', bimodal],
    ['sorted', gaussian(4097).sort()],
    ['reversed', gaussian(4097).sort().reverse()],
    ['many', gaussian(70_001)],
  ])('%s: exact order statistics', (_, x) => {
    for (const quantile of [0, 1e-9, 0.25, 0.5, 0.9, 0.95, 0.999, 1]) {
      const result = softThresholdSync(x, { quantile, device });
      expectWithinUlp(result.threshold, reference.threshold(x, quantile, 1));
      expectSplit(x, result);
    }
  });

  test('scale multiplies the threshold', () => {
    const x = gaussian(999);
    const { threshold } = softThresholdSync(x, { quantile: 0.5, device });
    for (const scale of [0.25, 1.5, 3.5 / 0.6745]) {
      const result = softThresholdSync(x, { quantile: 0.5, scale, device });
      expect(result.threshold).toBeCloseTo(scale * threshold, 6);
      expectSplit(x, result);
    }
  });

  test('changes nothing the second time', () => {
    // Rank 90 of 101 is an element. It stays the quantile of what it clips.
    const once = softThresholdSync(gaussian(101), { quantile: 0.9, device });
    const twice = softThresholdSync(once.base, { quantile: 0.9, device });
    expect(twice.threshold).toBe(once.threshold);
    expect(bits(twice.base)).toBe(bits(once.base));
    expect(twice.outliers.every((value) => value === 0)).toBe(true);
  });

  test('is the same for any number of threads', () => {
    const x = gaussian(200_003);
    const results = [1, 2, 3, 0].map((threads) => softThresholdSync(x, { device, threads }));
    expect(
      new Set(results.map(({ threshold, base, outliers }) => `${threshold} ${bits(base)} ${bits(outliers)}`)).size,
    ).toBe(1);
  });

  test.each<[string, unknown, unknown, 'ERR_INVALID_ARGUMENT' | 'ERR_NON_FINITE', RegExp]>([
    ['nothing', new Float32Array(0), {}, 'ERR_INVALID_ARGUMENT', /empty or detached/],
    ['no array', undefined, {}, 'ERR_INVALID_ARGUMENT', /^Expected x to be a Float32Array.*, got undefined$/],
    ['NaN', Float32Array.of(0, NaN), {}, 'ERR_NON_FINITE', /^Expected x to be finite, got NaN at index 1$/],
    ['Infinity', Float32Array.of(0, Infinity), {}, 'ERR_NON_FINITE', /got Infinity at index 1$/],
    [
      'a quantile above 1',
      new Float32Array(3),
      { quantile: 1.1 },
      'ERR_INVALID_ARGUMENT',
      /^Expected quantile to be in \[0, 1\], got 1.1$/,
    ],
    ['a quantile of NaN', new Float32Array(3), { quantile: NaN }, 'ERR_INVALID_ARGUMENT', /got NaN$/],
    [
      'a scale of 0',
      new Float32Array(3),
      { scale: 0 },
      'ERR_INVALID_ARGUMENT',
      /^Expected scale to be in \(0, ∞\), got 0$/,
    ],
    [
      'a misspelt option',
      new Float32Array(3),
      { quantil: 0.5 },
      'ERR_INVALID_ARGUMENT',
      /^Unknown option "quantil"; did you mean "quantile"\?$/,
    ],
  ])('refuses %s', async (_, x, options, code, message) => {
    await expectError(() => softThreshold(x as Float32Array, { device, ...(options as object) }), code, message);
    await expectError(() => softThresholdSync(x as Float32Array, { device, ...(options as object) }), code, message);
  });
});

function expectSplit(
  x: Float32Array,
  { base, outliers, threshold }: { base: Float32Array; outliers: Float32Array; threshold: number },
): void {
  expect(bits(base.map((value, i) => value + outliers[i]!))).toBe(bits(x));
  const limit = Math.fround(threshold);
  expect(base.every((value) => Math.abs(value) <= limit)).toBe(true);
  expect(
    outliers.every((value, i) => value === 0 || (Math.sign(value) === Math.sign(x[i]!) && Math.abs(x[i]!) > limit)),
  ).toBe(true);
}

/** Checks that two numbers differ by at most a unit in the last place of float32. */
function expectWithinUlp(actual: number, expected: number): void {
  const ulp = Math.max(2 ** -149, 2 ** (Math.floor(Math.log2(Math.abs(expected))) - 23));
  expect(Math.abs(actual - expected)).toBeLessThanOrEqual(ulp);
}

function lowRank(rows: number, columns: number, rank: number): Float32Array {
  const [left, right] = [gaussian(rows * rank, 5), gaussian(rank * columns, 6)];
  const x = new Float32Array(rows * columns);
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < columns; j++) {
      for (let k = 0; k < rank; k++) x[i * columns + j]! += left[i * rank + k]! * right[k * columns + j]!;
    }
  }
  return x;
}

function permutation(size: number, seed: number): number[] {
  const next = random(seed);
  return Array.from({ length: size }, (_, i) => ({ i, key: next() }))
    .sort((a, b) => a.key - b.key)
    .map(({ i }) => i);
}
