import {
  type Coefficients,
  type LrScale,
  Muon,
  newtonSchulzCoefficients,
  type OrthogonalState,
  Parameter,
  Root,
  type RootGroup,
  softThresholdSync,
  type Triple,
} from '../../lib/index.js';
import * as reference from '../reference.js';
import { bits, devicesUnderTest, expectError, gaussian, golden, random, relativeError } from '../support.js';

/** ROOT as its paper has it takes gradients as they are. test/optimizer/robust.test.ts has gradient thresholds. */
const paper = { gradientThreshold: null };

/** The precision of results that are compared with float64 here. test/native has the tests of the half precisions. */
const precision = 'float32' as const;

interface Trajectory {
  shape: [number, number];
  quantile: number | null;
  coefficients: Triple[];
  lr: number;
  momentum: number;
  nesterov: boolean;
  weightDecay: number;
  lrScale: LrScale;
  initial: number[];
  steps: { grad: number[]; threshold: number | null; param: number[] }[];
  momentumBuffer: number[];
}

const trajectories = ['root', 'muon'].flatMap((name) => golden<Trajectory>(`${name}_trajectory`).cases);

describe.each(devicesUnderTest())('on %s', (device) => {
  test.each(trajectories)(
    'golden $shape quantile $quantile lrScale $lrScale',
    async ({ shape, quantile, initial, steps, momentumBuffer, ...settings }) => {
      const { coefficients, lr, momentum, nesterov, weightDecay, lrScale } = settings;
      const w = new Parameter({ name: 'w', shape, data: Float32Array.from(initial) });
      const options = { coefficients, lr, momentum, nesterov, weightDecay, lrScale, device, precision };
      using optimizer =
        quantile === null ? new Muon([w], options) : new Root([w], { ...options, ...paper, threshold: { quantile } });
      for (const { grad, threshold, param } of steps) {
        w.grad.set(grad);
        await optimizer.step();
        expect(relativeError(w.data, param)).toBeLessThan(1e-4);
        const state = optimizer.stateOf(w);
        if (threshold === null) expect(state).toMatchObject({ threshold: null });
        else expect(Math.abs((state as OrthogonalState).threshold! / threshold - 1)).toBeLessThan(1e-6);
      }
      const state = optimizer.stateOf(w) as OrthogonalState;
      expect(state.step).toBe(steps.length);
      expect(relativeError(state.momentumBuffer, momentumBuffer)).toBeLessThan(1e-6);
    },
  );

  const shapes: [number, number][] = [
    [1, 1],
    [1, 40],
    [40, 1],
    [13, 1000],
    [47, 49],
    [48, 48],
    [49, 200],
    [97, 193],
    [192, 96],
  ];
  test.each(shapes)(
    '%i × %i against float64',
    (rows, columns) => {
      const next = random(rows * columns);
      for (const [lrScale, nesterov, threshold] of [
        ['rms', true, { quantile: 0.9, scale: 1 }],
        ['spectral', false, { quantile: 0.5, scale: 3.5 }],
        ['none', true, null],
      ] as const) {
        const settings = { lr: 0.03 * next(), momentum: next(), nesterov, weightDecay: next(), threshold, lrScale };
        const coefficients = newtonSchulzCoefficients([rows, columns], 'quintic');
        const w = new Parameter({ name: 'w', shape: [rows, columns], data: gaussian(rows * columns, 1) });
        const [data, buffer] = [Float64Array.from(w.data), new Float64Array(w.size)];
        using optimizer = new Root([w], { ...settings, ...paper, coefficients: 'quintic', device, precision });
        for (let step = 1; step <= 3; step++) {
          w.grad.set(gaussian(w.size, step + 10).map((value) => value ** 3));
          optimizer.stepSync();
          const epsilon = reference.orthogonalStep(data, buffer, w.grad, [rows, columns], {
            ...settings,
            coefficients,
          });
          const state = optimizer.stateOf(w) as OrthogonalState;
          expect(relativeError(w.data, data)).toBeLessThan(1e-5);
          expect(relativeError(state.momentumBuffer, buffer)).toBeLessThan(1e-6);
          if (epsilon === null) expect(state.threshold).toBeNull();
          else expect(Math.abs(state.threshold! / epsilon - 1)).toBeLessThan(1e-6);
        }
      }
    },
    30_000,
  );

  test.each<[string, number[], object, number[][]]>([
    ['a convolution', [6, 3, 2, 2], {}, [[0, 6, 12]]],
    [
      'a fused matrix',
      [12, 10],
      { split: 3 },
      [
        [0, 4, 10],
        [40, 4, 10],
        [80, 4, 10],
      ],
    ],
    [
      'a fused matrix of unequal blocks',
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
      [3, 40, 60],
      { stack: true },
      [
        [0, 40, 60],
        [2400, 40, 60],
        [4800, 40, 60],
      ],
    ],
    [
      'a stack of convolutions',
      [2, 4, 3, 2],
      { stack: true },
      [
        [0, 4, 6],
        [24, 4, 6],
      ],
    ],
    [
      'a stack of fused matrices',
      [2, 4, 6],
      { stack: true, split: [3, 1] },
      [
        [0, 3, 6],
        [18, 1, 6],
        [24, 3, 6],
        [42, 1, 6],
      ],
    ],
  ])('%s steps as its matrices would, bit for bit', (_, shape, layout, matrices) => {
    const size = shape.reduce((a, b) => a * b);
    const whole = new Parameter({ name: 'whole', shape, data: gaussian(size, 3), ...layout });
    const parts = matrices.map(([offset, rows, columns]) => {
      const data = whole.data.slice(offset, offset! + rows! * columns!);
      return new Parameter({ name: `at ${offset}`, shape: [rows!, columns!], data });
    });
    using together = new Root([whole], { device, precision });
    using apart = new Root(parts, { device, precision });
    for (let step = 1; step <= 3; step++) {
      whole.grad.set(gaussian(size, step));
      parts.forEach((part, i) => {
        part.grad.set(whole.grad.subarray(matrices[i]![0], matrices[i]![0]! + part.size));
      });
      together.stepSync();
      apart.stepSync();
    }
    const { thresholds } = together.stateOf(whole) as OrthogonalState;
    parts.forEach((part, i) => {
      expect(bits(part.data)).toBe(bits(whole.data.slice(matrices[i]![0], matrices[i]![0]! + part.size)));
      expect(apart.stateOf(part)).toMatchObject({ threshold: thresholds[i] });
    });
  });

  test('is the same for any number of threads, at once or one by one', async () => {
    const run = async (threads: number) => {
      const params = [[64, 64], [65, 130], [200, 90], [7]].map((shape, i) => new Parameter({ name: String(i), shape }));
      params.forEach((one, i) => {
        one.data.set(gaussian(one.size, i));
      });
      using optimizer = new Root(params, { threads, device, precision });
      for (let step = 1; step <= 3; step++) {
        params.forEach((one, i) => {
          one.grad.set(gaussian(one.size, 10 * step + i));
        });
        if (step === 2) optimizer.stepSync();
        else await optimizer.step();
      }
      return params.map((one) => bits(one.data)).join();
    };
    expect(new Set(await Promise.all([1, 2, 3, 0].map(run))).size).toBe(1);
  });

  test('thresholds are exact wherever they move between steps', () => {
    const shape = [121, 149] as const; // more than one range of a pass, the second one not of whole vectors
    const size = 121 * 149;
    const gradients: [string, (i: number, value: number) => number][] = [
      ['as before', (_, value) => value],
      ['a little more', (_, value) => 1.02 * value],
      ['ties at the edge', (i, value) => (i % 3 === 0 ? 0.875 : value)],
      ['a jump', (_, value) => 100 * value],
      ['back', (_, value) => value / 50],
      ['all equal', () => 3],
      ['mostly zero', (i, value) => (i % 20 === 0 ? value : 0)],
      ['tiny', (_, value) => 1e-40 * value],
      ['huge', (_, value) => 1e30 * value],
    ];
    for (const [momentum, nesterov, threshold] of [
      [0.95, true, { quantile: 0.9, scale: 1 }],
      [0, false, { quantile: 0.9, scale: 1 }],
      [0.3, true, 'robust'],
      [0, true, { quantile: 1, scale: 0.5 }],
    ] as const) {
      const w = new Parameter({ name: 'w', shape, data: gaussian(size, 3) });
      const settings = {
        lr: 0.1,
        momentum,
        nesterov,
        weightDecay: 0,
        lrScale: 'none',
        coefficients: 'quintic',
        steps: 1,
      } as const;
      using optimizer = new Root([w], { ...settings, ...paper, threshold, device, precision });
      const { quantile, scale } = (optimizer.paramGroups[0] as RootGroup).threshold!;
      for (const [name, change] of gradients.flatMap((one) => [one, one, one])) {
        w.grad.set(gaussian(size, 1).map((value, i) => change(i, value)));
        const before = Float64Array.from(w.data);
        optimizer.stepSync();
        const { momentumBuffer, threshold: found } = optimizer.stateOf(w) as OrthogonalState;
        const mu = Math.fround(momentum);
        const u = momentumBuffer.map((m, i) => (nesterov ? Math.fround(w.grad[i]! + Math.fround(mu * m)) : m));
        expect([name, found]).toEqual([name, softThresholdSync(u, { quantile, scale, device }).threshold]);
        const kept =
          Math.fround(found!) === 0
            ? u
            : u.map((value) => Math.min(Math.max(value, -Math.fround(found!)), Math.fround(found!)));
        const x = reference.newtonSchulz(kept, ...shape, newtonSchulzCoefficients(shape, 'quintic', 1));
        expect(
          relativeError(
            w.data,
            before.map((value, i) => value - 0.1 * x[i]!),
          ),
        ).toBeLessThan(1e-5);
      }
    }
  });

  test.each([
    [{ quantile: 0.9 }, true],
    [{ quantile: 0.5, scale: 2 }, false],
    [null, true],
    [null, false],
  ])(
    'with threshold %j and nesterov %p later steps refuse what is not finite, and nothing is lost',
    async (threshold, nesterov) => {
      const shape = [121, 149] as const;
      const size = 121 * 149;
      const twins = ['a', 'b'].map((name) => new Parameter({ name, shape, data: gaussian(size, 3) })) as [
        Parameter,
        Parameter,
      ];
      using a = make(twins[0]);
      using b = make(twins[1]);
      const bad: [number, number][] = [
        [0, NaN],
        [size - 1, Infinity],
        [size >> 1, -Infinity],
        [size - 2, NaN],
        [17, nesterov ? 3.4e38 : NaN],
      ];
      for (const [step, [index, value]] of bad.entries()) {
        for (const one of twins) one.grad.set(gaussian(size, 10 + step));
        b.stepSync();
        if (step > 0) {
          const good = twins[0].grad[index]!;
          twins[0].grad[index] = value;
          const before = [bits(twins[0].data), a.stateOf(twins[0])];
          await expectError(() => a.stepSync(), 'ERR_NON_FINITE', '"a"');
          expect([bits(twins[0].data), a.stateOf(twins[0])]).toEqual(before);
          twins[0].grad[index] = good;
        }
        a.stepSync();
        expect(bits(twins[0].data)).toBe(bits(twins[1].data));
        expect(a.stateOf(twins[0])).toEqual(b.stateOf(twins[1]));
      }

      function make(one: Parameter): Muon | Root {
        const options = { lr: 0.1, nesterov, device, precision, momentum: 0.99 };
        return threshold === null ? new Muon([one], options) : new Root([one], { ...options, ...paper, threshold });
      }
    },
  );

  test('without lr and weight decay nothing moves', () => {
    const params = [[30, 20], [9]].map(
      (shape, i) =>
        new Parameter({
          name: String(i),
          shape,
          data: gaussian(i === 0 ? 600 : 9),
          grad: gaussian(i === 0 ? 600 : 9, 2),
        }),
    );
    const before = params.map((one) => bits(one.data));
    using optimizer = new Root(params, { ...paper, lr: 0, weightDecay: 0, adamw: { lr: 0 }, device, precision });
    optimizer.stepSync();
    expect(params.map((one) => bits(one.data))).toEqual(before);
    expect(optimizer.stateOf(params[0]!)).toMatchObject({ momentumBuffer: params[0]!.grad });
  });

  test('clips nothing where the quantile is 0', () => {
    const grad = gaussian(400).map((value, i) => (i % 40 === 0 ? value : 0));
    const [clipped, free] = ['a', 'b'].map((name) => new Parameter({ name, shape: [20, 20], grad: grad.slice() })) as [
      Parameter,
      Parameter,
    ];
    using root = new Root([clipped], { ...paper, device, precision });
    using muon = new Muon([free], { device, precision });
    root.stepSync();
    muon.stepSync();
    expect(root.stateOf(clipped)).toMatchObject({ threshold: 0, thresholds: [0] });
    expect(muon.stateOf(free)).toMatchObject({ threshold: null, thresholds: [null] });
    expect(bits(clipped.data)).toBe(bits(free.data));
    expect(clipped.data.some((value) => value !== 0)).toBe(true);
  });

  test('an all-zero gradient only decays', () => {
    const w = new Parameter({ name: 'w', shape: [4, 5], data: new Float32Array(20).fill(2) });
    using optimizer = new Root([w], { lr: 0.1, weightDecay: 0.5, device, precision });
    optimizer.stepSync();
    expect(w.data).toEqual(new Float32Array(20).fill(2 * Math.fround(1 - 0.05)));
  });

  test.each<[string, Coefficients, number | undefined]>([
    ['one triple', [2, -1.5, 0.5], undefined],
    ['a longer list', Array.from({ length: 7 }, (): Triple => [1.875, -1.25, 0.375]), undefined],
    ['three steps', 'polar-express', 3],
  ])('takes %s for the coefficients', (_, coefficients, steps) => {
    const w = new Parameter({ name: 'w', shape: [8, 12], grad: gaussian(96) });
    using optimizer = new Muon([w], {
      coefficients,
      steps,
      lr: 1,
      weightDecay: 0,
      momentum: 0,
      lrScale: 'none',
      device,
      precision,
    });
    optimizer.stepSync();
    const triples = newtonSchulzCoefficients([8, 12], coefficients, steps);
    expect(triples).toHaveLength(
      steps ?? Math.max(5, Array.isArray(coefficients) && Array.isArray(coefficients[0]) ? coefficients.length : 1),
    );
    expect(
      relativeError(
        w.data,
        reference.newtonSchulz(w.grad, 8, 12, triples).map((value) => -value),
      ),
    ).toBeLessThan(1e-5);
  });
});
