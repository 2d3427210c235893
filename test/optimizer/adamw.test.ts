import { AdamW, type AdamWState, Parameter } from '../../lib/index.js';
import * as reference from '../reference.js';
import { devicesUnderTest, gaussian, golden, relativeError } from '../support.js';

interface Trajectory {
  shape: number[];
  lr: number;
  betas: [number, number];
  eps: number;
  weightDecay: number;
  initial: number[];
  steps: { grad: number[]; param: number[] }[];
  expAvg: number[];
  expAvgSq: number[];
}

describe.each(devicesUnderTest())('on %s', (device) => {
  test.each(golden<Trajectory>('adamw_trajectory').cases)(
    'golden $shape lr $lr',
    async ({ shape, initial, steps, expAvg, expAvgSq, ...settings }) => {
      const w = new Parameter({ name: 'w', shape, data: Float32Array.from(initial) });
      const { lr, betas, eps, weightDecay } = settings;
      using optimizer = new AdamW([w], { lr, betas, eps, weightDecay, device });
      for (const { grad, param } of steps) {
        w.grad.set(grad);
        await optimizer.step();
        expect(relativeError(w.data, param)).toBeLessThan(1e-6);
      }
      const state = optimizer.stateOf(w) as AdamWState;
      expect(state.step).toBe(12);
      // The moment has values of both signs, which cancel.
      expect(relativeError(state.expAvg, expAvg)).toBeLessThan(1e-5);
      expect(relativeError(state.expAvgSq, expAvgSq)).toBeLessThan(1e-6);
    },
  );

  test.each([[[]], [[1]], [[1027]], [[33, 65]], [[300, 1001]], [[2, 3, 5, 7]]])('shape %j against float64', (shape) => {
    const w = new Parameter({ name: 'w', shape });
    w.data.set(gaussian(w.size));
    const [data, expAvg, expAvgSq] = [Float64Array.from(w.data), new Float64Array(w.size), new Float64Array(w.size)];
    const settings = { lr: 0.01, betas: [0.9, 0.95] as const, eps: 1e-8, weightDecay: 0.1 };
    using optimizer = new AdamW([w], { ...settings, device });
    for (let step = 1; step <= 5; step++) {
      w.grad.set(gaussian(w.size, step + 1));
      optimizer.stepSync();
      reference.adamwStep(data, expAvg, expAvgSq, w.grad, step, settings);
      expect(relativeError(w.data, data)).toBeLessThan(1e-6);
    }
  });

  test('a step that was skipped does not count', () => {
    const [counted, skipped] = ['a', 'b'].map((name) => new Parameter({ name, shape: [5], grad: gaussian(5) })) as [
      Parameter,
      Parameter,
    ];
    using one = new AdamW([counted], { device });
    using other = new AdamW([skipped], { device, nonFinite: 'skip' });
    skipped.grad[2] = NaN;
    expect(other.stepSync()).toEqual({ step: 0, applied: false, nonFinite: ['b'] });
    skipped.grad.set(counted.grad);
    expect([one.stepSync(), other.stepSync()]).toEqual([
      { step: 1, applied: true, nonFinite: [] },
      { step: 1, applied: true, nonFinite: [] },
    ]);
    expect(skipped.data).toEqual(counted.data);
  });

  test('a gradient that was always zero only decays', () => {
    const w = new Parameter({ name: 'w', shape: [3], data: Float32Array.of(1, -2, 3) });
    using optimizer = new AdamW([w], { lr: 0.5, weightDecay: 0.5, eps: 1e-37, device });
    optimizer.stepSync();
    expect(w.data).toEqual(Float32Array.of(0.75, -1.5, 2.25));
  });
});
