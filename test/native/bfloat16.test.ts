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
import { iterated, matrixOf } from '../../scripts/common/spectra.js';
import * as reference from '../reference.js';
import {
  alongFewCoordinates,
  bits,
  expectError,
  fillGradients,
  gaussian,
  parameters,
  random,
  relativeError,
} from '../support.js';

/** These tests are for the CPU. test/native/cuda.test.ts and test/native/accuracy.test.ts test CUDA as well. */
const device = 'cpu' as const;
const { precisions } = devices().cpu;
const available = precisions.includes('bfloat16');
const whereAvailable = available ? describe : describe.skip;
/** Whether products are those of matrix units. */
const onTiles = precisions.includes('bfloat16x3');

function used(precision: 'auto' | Precision): Precision {
  using optimizer = new Root([new Parameter({ name: 'w', shape: [2, 2] })], { device, precision });
  return optimizer.precision;
}

test('an optimizer computes in what was asked for, or tells why it cannot', async () => {
  expect(used('auto')).toBe(onTiles ? 'bfloat16x3' : 'float32');
  for (const precision of ['float32', 'bfloat16', 'bfloat16x3', 'float16'] as const) {
    if (precisions.some((one) => one === precision)) expect(used(precision)).toBe(precision);
    else {
      const message = /Expected precision to be one that this processor computes in \(float32.*; .+\), got/;
      await expectError(() => used(precision), 'ERR_INVALID_ARGUMENT', message);
    }
  }
});

test('the addon refuses what the processor does not multiply, before anything else', () => {
  const { Optimizer, cpuPeak, orthogonalizeSync: native } = addon();
  const missing = (['float16', 'bfloat16', 'bfloat16x3'] as const).filter(
    (one) => !precisions.some((other) => one === other),
  );
  for (const precision of missing) {
    const out = new Float32Array(4);
    const calls = [
      () => new Optimizer(device, 1, precision, true, []),
      () => cpuPeak(precision),
      () =>
        native(
          device,
          1,
          precision,
          true,
          Float32Array.of(1, 2, 3, 4),
          out,
          [{ offset: 0, rows: 2, columns: 2 }],
          [Float64Array.of(1, 0, 0)],
        ),
    ];
    for (const call of calls) {
      let error: unknown;
      try {
        call();
      } catch (thrown) {
        error = thrown;
      }
      expect(error).toMatchObject({
        code: 'ERR_INVALID_ARGUMENT',
        message: expect.stringMatching(/^Expected a precision that [\w-]+ multiplies$/) as string,
      });
    }
    expect(out).toEqual(new Float32Array(4));
  }
});

(onTiles ? test.skip : test)(
  'the plan: standard form near squares, else the Gram form, its squares float32, after single iterations',
  () => {
    const plan = (rows: number, columns: number, preset: 'muon' | 'adaptive' | 'polar-express', steps = 5) =>
      addon().newtonSchulzPlan(
        device,
        'bfloat16',
        true,
        rows,
        columns,
        Float64Array.from(newtonSchulzCoefficients([rows, columns], preset, steps).flat()),
      );
    expect(plan(512, 1024, 'muon')).toEqual({
      form: 'standard',
      legs: [1, 1, 1, 1, 1],
      splitLegs: 0,
      flops: 5 * (3 * 2 + 1) * 512 ** 3,
      float32Flops: 0,
    });
    for (const preset of ['muon', 'adaptive', 'polar-express'] as const) {
      const [single, leg] = [3 * 4 + 1, { bfloat16: 3 * 4, float32: 4 * 3 - 3 }];
      expect(plan(256, 1024, preset)).toEqual({
        form: 'gram',
        legs: [1, 1, 3],
        splitLegs: 0,
        flops: (2 * single + leg.bfloat16 + leg.float32) * 256 ** 3,
        float32Flops: leg.float32 * 256 ** 3,
      });
    }
    expect(plan(64, 1024, 'polar-express', 10).legs).toEqual([1, 1, 1, 1, 1, 5]);
  },
);

whereAvailable('products in bfloat16', () => {
  // Odd lengths leave the last word half empty. Others are edges of tiles (8), vectors (16), panels (48) and blocks
  // (96, 192). Both forms occur.
  const shapes = [
    [1, 1],
    [1, 2],
    [3, 3],
    [1, 129],
    [129, 1],
    [3, 50],
    [50, 3],
    [7, 9],
    [8, 8],
    [15, 17],
    [16, 48],
    [17, 47],
    [47, 49],
    [49, 121],
    [96, 97],
    [97, 95],
    [191, 193],
    [193, 191],
    [200, 203],
    [104, 401],
    [401, 104],
    [385, 387],
    [49, 1201],
  ] as const;
  test.each(shapes)('%i × %i agrees with float64, on any number of threads to the bit', (rows, columns) => {
    for (const coefficients of ['muon', 'adaptive'] as const) {
      const x = gaussian(rows * columns, rows + columns);
      const expected = reference.newtonSchulz(
        Float64Array.from(x),
        rows,
        columns,
        newtonSchulzCoefficients([rows, columns], coefficients),
      );
      const results = [1, 2, 3].map((threads) =>
        orthogonalizeSync(x, [rows, columns], { coefficients, device, threads, precision: 'bfloat16' }),
      );
      // Where there are few directions, a small one can make all the difference.
      expect(relativeError(results[0]!, expected)).toBeLessThan(x.length < 64 ? 5e-2 : 2.5e-2);
      for (const result of results) expect(bits(result)).toBe(bits(results[0]!));
      const once = orthogonalizeSync(x, [rows, columns], { coefficients, device, precision: 'float32' });
      expect(bits(once)).not.toBe(bits(results[0]!));
    }
  });

  test('what is kept from call to call is told apart by precision', () => {
    const x = gaussian(60 * 70);
    const result = (precision: Precision) => bits(orthogonalizeSync(x, [60, 70], { device, threads: 2, precision }));
    const [half, full] = [result('bfloat16'), result('float32')];
    expect(half).not.toBe(full);
    for (let i = 0; i < 3; i++) {
      expect([result('bfloat16'), result('float32'), result('float32'), result('bfloat16')]).toEqual([
        half,
        full,
        full,
        half,
      ]);
    }
  });

  test('more iterations take restarts, and stay as near', () => {
    for (const [rows, columns] of [
      [64, 64],
      [48, 300],
    ] as const) {
      const x = gaussian(rows * columns, 3);
      for (const steps of [6, 8, 10, 20]) {
        const expected = reference.newtonSchulz(
          Float64Array.from(x),
          rows,
          columns,
          newtonSchulzCoefficients([rows, columns], 'polar-express', steps),
        );
        expect(
          relativeError(
            orthogonalizeSync(x, [rows, columns], {
              coefficients: 'polar-express',
              steps,
              device,
              precision: 'bfloat16',
            }),
            expected,
          ),
        ).toBeLessThan(3e-2);
      }
    }
  });

  // Q stands for 1 in the directions that X has. In all others it stands for as much as the coefficients grow by, and
  // the rounding of that must not reach the 1.
  const lowRank: Record<string, (length: number) => number[]> = {
    'rank 1': (length) => Array.from({ length }, (_, i) => (i < 1 ? 1 : 0)),
    'rank 4': (length) => Array.from({ length }, (_, i) => (i < 4 ? 1 : 0)),
    'rank 16': (length) => Array.from({ length }, (_, i) => (i < 16 ? 1 : 0)),
    '1 + 1e-3': (length) => Array.from({ length }, (_, i) => (i < 1 ? 1 : 1e-3)),
    '4 + 1e-4': (length) => Array.from({ length }, (_, i) => (i < 4 ? 1 : 1e-4)),
    'condition 1e6': (length) => Array.from({ length }, (_, i) => 10 ** ((-6 * i) / Math.max(1, length - 1))),
  };
  test.each(Object.keys(lowRank))('%s stays bounded, however many iterations', (name) => {
    for (const [rows, columns] of [
      [1, 64],
      [2, 64],
      [8, 256],
      [64, 512],
      [512, 64],
      [64, 64],
    ] as const) {
      const least = Math.min(rows, columns);
      const values = lowRank[name]!(least);
      for (const coefficients of ['adaptive', 'muon', 'polar-express', 'quintic'] as const) {
        for (const steps of [5, 6, 7, 8, 10, 20]) {
          for (const seed of [1, 2]) {
            const x = Float32Array.from(matrixOf(values, rows, columns, seed));
            const result = orthogonalizeSync(x, [rows, columns], {
              coefficients,
              steps,
              device,
              precision: 'bfloat16',
            });
            const norm = reference.frobenius(result) / Math.sqrt(least);
            expect({ rows, columns, coefficients, steps, norm: norm < 1.3 ? 'bounded' : norm }).toEqual({
              rows,
              columns,
              coefficients,
              steps,
              norm: 'bounded',
            });
          }
        }
      }
    }
  });

  test.each(['rank 1', 'rank 4', 'rank 16'])('of %s the directions that there are come out as in float64', (name) => {
    for (const [rows, columns] of [
      [64, 512],
      [128, 1024],
      [64, 64],
    ] as const) {
      const values = lowRank[name]!(Math.min(rows, columns));
      for (const coefficients of ['adaptive', 'muon', 'polar-express'] as const) {
        const expected = matrixOf(
          iterated(values, newtonSchulzCoefficients([rows, columns], coefficients)),
          rows,
          columns,
        );
        const result = orthogonalizeSync(Float32Array.from(matrixOf(values, rows, columns)), [rows, columns], {
          coefficients,
          device,
          precision: 'bfloat16',
        });
        const along = (x: ArrayLike<number>) => expected.reduce((sum, value, i) => sum + value * x[i]!, 0);
        const share = along(result) / along(expected);
        expect({ rows, columns, coefficients, share: Math.abs(share - 1) < 0.1 ? 'near 1' : share }).toEqual({
          rows,
          columns,
          coefficients,
          share: 'near 1',
        });
      }
    }
  });

  // Equal parts round equally, and the errors do not average out where there are few parts.
  test.each([1, 2, 4, 16])('directions along %i coordinates each stay bounded, however many iterations', (along) => {
    const next = random(along);
    for (const [rows, columns] of [
      [64, 512],
      [512, 64],
      [64, 72],
    ] as const) {
      for (const coefficients of ['adaptive', 'muon', 'polar-express', 'quintic'] as const) {
        for (const steps of [5, 6, 8, 20]) {
          for (let count = 1; count <= Math.min(8, 64 / along); count++) {
            for (let trial = 0; trial < 4; trial++) {
              const x = alongFewCoordinates([rows, columns], { count, along, spread: trial, next });
              const norm =
                reference.frobenius(
                  orthogonalizeSync(x, [rows, columns], { coefficients, steps, device, precision: 'bfloat16' }),
                ) / Math.sqrt(count);
              const norms = {
                rows,
                columns,
                coefficients,
                steps,
                count,
                trial,
                norm: norm > 0.5 && norm < 1.35 ? 'bounded' : norm,
              };
              expect(norms).toEqual({ ...norms, norm: 'bounded' });
            }
          }
        }
      }
    }
  });

  test('a matrix with few rows that are not 0 stays bounded', () => {
    const next = random(3);
    for (let seed = 0; seed < 60; seed++) {
      const count = 1 + (seed % 8);
      const x = new Float32Array(64 * 512);
      for (let i = 0; i < count; i++) x.set(gaussian(512, 8 * seed + i), Math.floor(64 * next()) * 512);
      for (const steps of [5, 8, 10]) {
        const norm =
          reference.frobenius(orthogonalizeSync(x, [64, 512], { steps, device, precision: 'bfloat16' })) /
          Math.sqrt(count);
        expect({ seed, steps, norm: norm > 0.5 && norm < 1.35 ? 'bounded' : norm }).toEqual({
          seed,
          steps,
          norm: 'bounded',
        });
      }
    }
  });

  test('zero stays zero, and size does not matter', () => {
    for (const shape of [
      [30, 31],
      [20, 120],
    ] as const) {
      const x = gaussian(shape[0] * shape[1]);
      const options = { device, precision: 'bfloat16' } as const;
      expect(orthogonalizeSync(new Float32Array(x.length), shape, options)).toEqual(new Float32Array(x.length));
      const result = orthogonalizeSync(x, shape, options);
      for (const factor of [1e-2, 1e30]) {
        expect(
          relativeError(
            orthogonalizeSync(
              x.map((value) => value * factor),
              shape,
              options,
            ),
            result,
          ),
        ).toBeLessThan(1e-2);
      }
    }
  });

  test('a matrix and its transpose are orthogonalised alike', () => {
    for (const [rows, columns] of [
      [60, 90],
      [40, 200],
    ] as const) {
      const x = gaussian(rows * columns);
      const [result, transposed] = [
        orthogonalizeSync(x, [rows, columns], { device, precision: 'bfloat16' }),
        orthogonalizeSync(Float32Array.from(reference.transpose(x, rows, columns)), [columns, rows], {
          device,
          precision: 'bfloat16',
        }),
      ];
      expect(bits(transposed)).toBe(bits(Float32Array.from(reference.transpose(result, rows, columns))));
    }
  });

  test.each([Root, Muon])('%p trains as in float32', (Kind) => {
    const shapes = [[40, 96], [96, 40], [33, 17], [30, 200], [6, 3, 2, 2], [5]];
    const [half, full] = [parameters('w', shapes), parameters('w', shapes)];
    const before = full.map(({ data }) => data.slice());
    using inHalf = new Kind(half, { device, precision: 'bfloat16', lr: 0.05 });
    using inFull = new Kind(full, { device, lr: 0.05 });
    for (let step = 1; step <= 5; step++) {
      fillGradients(step, half, full);
      inHalf.stepSync();
      inFull.stepSync();
    }
    half.forEach((one, i) => {
      const moved = (data: Float32Array) => data.map((value, j) => value - before[i]![j]!);
      expect(relativeError(moved(one.data), Float64Array.from(moved(full[i]!.data)))).toBeLessThan(2e-2);
    });
    // Parameters that do not go through the products are the same to the bit.
    expect(bits(half.at(-1)!.data)).toBe(bits(full.at(-1)!.data));
    const [a, b] = [inHalf.stateOf(half[0]!), inFull.stateOf(full[0]!)];
    expect({ ...a }).toEqual({ ...b });
  });

  test('coefficients that its rounding can send astray are refused', () => {
    expect(() =>
      orthogonalizeSync(gaussian(4), [2, 2], { coefficients: 'cans', device, precision: 'bfloat16' }),
    ).toThrow(/rounded to bfloat16, within 10/);
  });
});
