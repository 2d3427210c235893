import { totalmem } from 'node:os';
import {
  devices,
  orthogonalizeSync,
  type OrthogonalState,
  Parameter,
  Root,
  softThresholdSync,
} from '../../lib/index.js';
import { bits, devicesUnderTest, fillGradients, gaussian, isEmulated, parameters, relativeError } from '../support.js';
import { limits, limitsOfLarge, spectra } from './cuda-spectra.js';

const device = devicesUnderTest().find((one) => one !== 'cpu') ?? 'cuda';
const onGpu = devicesUnderTest().includes(device) && !isEmulated(device) ? describe : describe.skip;

onGpu("on a GPU, at sizes out of the emulator's reach", () => {
  const minutes = 60_000;

  const cases = [
    ...Object.keys(spectra).map((name) => [name, 2049, 8191] as const),
    ['heavy-tailed', 2048, 2048] as const,
    ['heavy-tailed', 4096, 14336] as const,
  ];
  test.each(cases)(
    'orthogonalise alike: %s, %i × %i',
    (name, rows, columns) => {
      const x = spectra[name]!(rows, columns);
      const expected = orthogonalizeSync(x, [rows, columns], { device: 'cpu' });
      for (const [precision, limit] of limitsOfLarge) {
        const error = relativeError(orthogonalizeSync(x, [rows, columns], { device, precision }), expected);
        expect({ precision, error: error < limit ? 'small' : error }).toEqual({ precision, error: 'small' });
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
