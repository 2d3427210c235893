import { orthogonalizeSync, type OrthogonalState, Root, type RootOptions, softThresholdSync } from '../../lib/index.js';
import { bits, devicesUnderTest, gaussian, isEmulated, parameters, relativeError } from '../support.js';

const device = devicesUnderTest().find((one) => one !== 'cpu') ?? 'cuda';
const onCuda = devicesUnderTest().includes(device) ? describe : describe.skip;

const shapes: [number, number][] = isEmulated(device)
  ? [
      [2, 3],
      [40, 56],
      [129, 65],
    ]
  : [
      [2, 3],
      [129, 65],
      [450, 550],
    ];
/** A scan has blocks of 4096 elements up to 2^22 of them, and larger blocks beyond. */
const longScan: [number, number] = [2100, 2050];

/** Gradients of one step after another. The first threshold is unknown, later ones are near the last one or far off. */
const courses: Record<string, (size: number) => Float32Array[]> = {
  'that hardly change': (size) => [1, 1, 1.03, 0.95, 1.05].map((factor) => scaled(gaussian(size, 1), factor)),
  'at the ends of the bracket': (size) => [1, 1.12, 1, 0.885, 1, 1.13].map((f) => scaled(gaussian(size, 2), f)),
  'that jump': (size) => [1, 30, 0.01, 1e-30, 1e30, 1].map((factor) => scaled(gaussian(size, 3), factor)),
  'from other draws': (size) => [1, 2, 3, 4].map((seed) => gaussian(size, seed)),
  'of few values': (size) =>
    [1, 1, 1.01].map((factor) => Float32Array.from({ length: size }, (_, i) => factor * (((i * 7) % 11) - 5))),
  'of one value': (size) => [1, 1, 1.001].map((factor) => new Float32Array(size).fill(-2.5 * factor)),
  'of zeros and others': (size) =>
    [1, 1, 1].map((_, step) => gaussian(size, 5).map((value, i) => (i % (step + 2) === 0 ? 0 : value))),
  'at the edge of a binade': (size) =>
    [1, 1, 1.02].map((factor) => scaled(gaussian(size, 6), 1e-3).map((value) => factor * (Math.sign(value) + value))),
  'of denormals': (size) => [1, 1].map(() => Float32Array.from({ length: size }, (_, i) => ((i % 97) - 48) * 1e-43)),
};

function scaled(values: Float32Array, factor: number): Float32Array {
  return values.map((value) => factor * value);
}

const settings: Record<string, RootOptions> = {
  'at quantile 0.9': { threshold: { quantile: 0.9, scale: 1 } },
  'at quantile 0': { threshold: { quantile: 0, scale: 1 } },
  'at quantile 1': { threshold: { quantile: 1, scale: 1 } },
  'at three robust deviations': { threshold: 'robust' },
  'of the gradient too': { gradientThreshold: {}, threshold: { quantile: 0.95, scale: 1 } },
  'of the gradient alone': { gradientThreshold: 'robust', threshold: null },
  'of no kind': { threshold: null, gradientThreshold: null },
};

onCuda('thresholds that are sought near the last ones', () => {
  test.each(Object.keys(settings).flatMap((setting) => Object.keys(courses).map((name) => [setting, name] as const)))(
    '%s, of gradients %s',
    (setting, name) => {
      // Thresholds of one kind of course are sought with long scans as well, where no emulator has to take them.
      const sizes = name === 'that jump' && !isEmulated(device) ? [...shapes, longScan] : shapes;
      for (const momentum of [0, 0.9]) {
        const [there, here] = [parameters('w', sizes), parameters('w', sizes)];
        const options: RootOptions = { ...settings[setting], momentum, steps: 2, lr: 0.1 };
        using onDevice = new Root(there, { ...options, device, precision: 'float32' });
        using onHost = new Root(here, { ...options, device: 'cpu', precision: 'float32' });
        const gradients = sizes.map(([rows, columns]) => courses[name]!(rows * columns));
        for (let step = 0; step < gradients[0]!.length; step++) {
          for (const model of [there, here]) model.forEach((one, i) => one.grad.set(gradients[i]![step]!));
          onDevice.stepSync();
          onHost.stepSync();
          there.forEach((one, i) => {
            const [a, b] = [onDevice.stateOf(one), onHost.stateOf(here[i]!)] as [OrthogonalState, OrthogonalState];
            expect([a.thresholds, a.gradientThresholds, a.gradientScales]).toEqual([
              b.thresholds,
              b.gradientThresholds,
              b.gradientScales,
            ]);
            expect(bits(a.momentumBuffer)).toBe(bits(b.momentumBuffer));
            expect(relativeError(one.data, here[i]!.data)).toBeLessThan(1e-5);
          });
        }
      }
    },
  );

  // The iteration hides an error of the norm; one iteration of these coefficients does not.
  test.each(Object.keys(courses))('give the norm of what is left of gradients %s', (name) => {
    const coefficients = [1, 0, 0] as const;
    for (const [rows, columns] of shapes) {
      const [model] = parameters('w', [[rows, columns]]);
      using optimizer = new Root([model!], {
        device,
        precision: 'float32',
        momentum: 0,
        nesterov: false,
        weightDecay: 0,
        lr: 1,
        lrScale: 'none',
        coefficients,
        steps: 1,
        gradientThreshold: null,
        threshold: { quantile: 0.9, scale: 1 },
      });
      for (const gradient of courses[name]!(rows * columns)) {
        model!.data.fill(0);
        model!.grad.set(gradient);
        optimizer.stepSync();
        const { base } = softThresholdSync(gradient, { quantile: 0.9, scale: 1, device: 'cpu' });
        const expected = orthogonalizeSync(base, [rows, columns], { coefficients, steps: 1, device: 'cpu' });
        expect(relativeError(scaled(model!.data, -1), expected)).toBeLessThan(1e-6);
      }
    }
  });

  test('do not depend on the order of blocks, nor on what else is in the batch', () => {
    const draws = [1, 2, 3, 4].map((seed) => gaussian(150 * 300, seed));
    const after = [1, 1, 3].map((count) => {
      const model = parameters(
        'w',
        Array.from({ length: count }, () => [150, 300]),
      );
      model.forEach((one) => one.data.fill(1));
      // In float16 a last bit of the norm would hardly show. A scan of this size has eleven blocks.
      using optimizer = new Root(model, { device, precision: 'float32' });
      for (const draw of draws) {
        model.forEach((one, i) => one.grad.set(i === 0 ? draw : scaled(draw, i + 2)));
        optimizer.stepSync();
      }
      return bits(model[0]!.data);
    });
    expect(new Set(after).size).toBe(1);
  });
});
