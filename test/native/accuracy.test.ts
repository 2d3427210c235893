import {
  devices,
  newtonSchulzCoefficients,
  orthogonalizeSync,
  Parameter,
  type Precision,
  type Preset,
  Root,
} from '../../lib/index.js';
import { iterated, matrixOf, spectra } from '../../scripts/common/spectra.js';
import * as reference from '../reference.js';
import { devicesUnderTest, isEmulated, relativeError } from '../support.js';

test.each([
  [8, 32],
  [32, 8],
  [16, 16],
])('a %i × %i matrix has the singular values and the image that it was made for', (rows, columns) => {
  for (const spectrum of Object.values(spectra)) {
    const values = spectrum(8, 4);
    const x = matrixOf(values, rows, columns);
    const found = reference.singularValues(x, rows, columns);
    values.forEach((value, i) => {
      expect(found[i]).toBeCloseTo(value, 10);
    });
    const coefficients = newtonSchulzCoefficients([rows, columns], 'polar-express');
    expect(
      relativeError(
        reference.newtonSchulz(x, rows, columns, coefficients),
        matrixOf(iterated(values, coefficients), rows, columns),
      ),
    ).toBeLessThan(1e-10);
  }
});

/**
 * The largest error of a result, relative in the Frobenius norm: with the default coefficients, and with any preset.
 */
const limits: Record<Precision, { usual: number; preset: number }> = {
  float32: { usual: 1e-5, preset: 1e-4 },
  float16: { usual: 5e-3, preset: 2e-2 },
  bfloat16: { usual: 3e-2, preset: 0.1 },
};
/**
 * The same for matrices whose rank is lower than their size, or nearly so. Any rounding of the matrix itself puts
 * something into every direction, and the iteration raises it a few hundred times.
 */
const deficient: typeof limits = {
  float32: { usual: 1e-4, preset: 1e-3 },
  float16: { usual: 0.1, preset: 0.2 },
  bfloat16: { usual: 0.5, preset: 0.7 },
};
const presets: Preset[] = ['adaptive', 'muon', 'polar-express', 'cans', 'quintic'];

describe.each(devicesUnderTest())('on %s', (device) => {
  const precisions: Precision[] = device === 'cpu' ? devices().cpu.precisions : ['float32', 'float16', 'bfloat16'];
  const small: [number, number][] = [
    [64, 64],
    [128, 32],
    [64, 256],
  ];
  const large: [number, number][] = [
    [128, 128],
    [128, 512],
    [1024, 128],
    [256, 1024],
    [512, 512],
  ];
  const shapes = isEmulated(device) ? small : large;
  test.each(shapes.flatMap(([rows, columns]) => Object.keys(spectra).map((name) => [name, rows, columns] as const)))(
    '%s, %i × %i',
    (name, rows, columns) => {
      const values = spectra[name]!(Math.min(rows, columns), Math.max(rows, columns) / Math.min(rows, columns));
      const x = Float32Array.from(matrixOf(values, rows, columns));
      for (const coefficients of presets) {
        const expected = matrixOf(
          iterated(values, newtonSchulzCoefficients([rows, columns], coefficients)),
          rows,
          columns,
        );
        for (const precision of precisions) {
          // cans takes some values to within a rounding of the point from which the next iterations take them ever
          // further.
          if (coefficients === 'cans' && precision !== 'float32') continue;
          const error = relativeError(
            orthogonalizeSync(x, [rows, columns], { coefficients, device, precision }),
            expected,
          );
          const { usual, preset } = (/deficient|condition/.test(name) ? deficient : limits)[precision];
          expect({
            coefficients,
            precision,
            error: error < (coefficients === 'adaptive' ? usual : preset) ? 'small' : error,
          }).toEqual({ coefficients, precision, error: 'small' });
        }
      }
    },
  );

  test('refuses coefficients that the rounding of the products can send astray', () => {
    const x = Float32Array.of(1, 2, 3, 4);
    for (const precision of precisions) {
      const calls = [
        () => orthogonalizeSync(x, [2, 2], { coefficients: 'cans', device, precision }),
        () => {
          new Root([new Parameter({ name: 'w', shape: [2, 2] })], {
            coefficients: 'cans',
            device,
            precision,
          }).dispose();
        },
      ];
      for (const call of calls) {
        if (precision === 'float32') call();
        else {
          expect(call).toThrow(
            new RegExp(
              `^Expected coefficients to keep singular values in \\[0, 1\\], rounded to ${precision}, within 10, ` +
                'got ones that take some to',
            ),
          );
        }
      }
    }
  });

  (isEmulated(device) ? test.skip : test)('2048 × 2048 and 2048 × 4096', () => {
    for (const columns of [2048, 4096]) {
      for (const name of ['Gaussian', 'rank-deficient']) {
        const values = spectra[name]!(2048, columns / 2048);
        const x = Float32Array.from(matrixOf(values, 2048, columns));
        const expected = matrixOf(iterated(values, newtonSchulzCoefficients([2048, columns])), 2048, columns);
        for (const precision of precisions) {
          const { usual } = (name === 'Gaussian' ? limits : deficient)[precision];
          expect(relativeError(orthogonalizeSync(x, [2048, columns], { device, precision }), expected)).toBeLessThan(
            usual,
          );
        }
      }
    }
  });
});
