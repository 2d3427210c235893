import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { newtonSchulzCoefficients, Parameter, Root, softThresholdSync } from '../../lib/index.js';
import { iteratedMatrix, readMomenta } from '../../scripts/common/momenta.js';
import * as reference from '../reference.js';
import { fillGradients, gaussian, parameters, relativeError } from '../support.js';

const folder = mkdtempSync(path.join(tmpdir(), 'momenta-'));
afterAll(() => {
  rmSync(folder, { recursive: true });
});

test('the momenta of a checkpoint come matrix by matrix, clipped where the optimizer clips', async () => {
  const file = path.join(folder, 'model.safetensors');
  const params = [
    ...parameters('w', [[6, 10]]),
    new Parameter({ name: 'qkv', shape: [6, 5], split: 3 }),
    ...parameters('bias', [[4]]),
  ];
  using optimizer = new Root(params, { device: 'cpu', threshold: { quantile: 0.5, scale: 2 } });
  for (let step = 1; step <= 2; step++) {
    fillGradients(step, params);
    optimizer.stepSync();
  }
  await optimizer.save(file);
  const momenta = await readMomenta(file);
  expect(momenta.map(({ name, shape }) => [name, ...shape])).toEqual([
    ['w0', 6, 10],
    ['qkv[0]', 2, 5],
    ['qkv[1]', 2, 5],
    ['qkv[2]', 2, 5],
  ]);
  const state = optimizer.stateOf(params[1]!);
  const buffer = 'momentumBuffer' in state ? state.momentumBuffer : new Float32Array();
  const clipped = softThresholdSync(buffer.slice(10, 20), { quantile: 0.5, scale: 2, device: 'cpu' });
  expect(momenta[2]!.values).toEqual(clipped.base);
});

test.each([
  [12, 30],
  [30, 12],
] as const)('the iteration of a %i × %i matrix is that of the reference', (rows, columns) => {
  const x = gaussian(rows * columns);
  const coefficients = newtonSchulzCoefficients([rows, columns], 'polar-express');
  const expected = reference.newtonSchulz(x, rows, columns, coefficients);
  expect(relativeError(iteratedMatrix(x, [rows, columns], coefficients), expected)).toBeLessThan(1e-12);
});
