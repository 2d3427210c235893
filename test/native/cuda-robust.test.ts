// Gradient thresholds, the normalization of rows and cautious decay: the CUDA backend against the CPU, at the seam of
// the addon.
import { addon } from '../../lib/binding.js';
import { bits, devicesUnderTest, gaussian, isEmulated, relativeError } from '../support.js';

const device = devicesUnderTest().find((one) => one !== 'cpu') ?? 'cuda';
const emulated = isEmulated(device);
const onCuda = devicesUnderTest().includes(device) ? describe : describe.skip;

interface Shape {
  rows: number;
  columns: number;
  inOut?: boolean;
}
interface Layout {
  size: number;
  matrices: (Shape & { offset: number })[];
}
interface Options {
  lr?: number;
  weightDecay?: number;
  nesterov?: boolean;
  cautious?: boolean;
  threshold?: { quantile: number; scale: number } | null;
  gradientThreshold?: { quantile: number; scale: number; growth: number | null } | null;
  normalize?: { beta2: number } | null;
}
type State = Record<string, Float32Array | Float64Array | null>;
type Found = Record<string, readonly (number | null)[] | boolean>;
interface Optimizer {
  stepSync(data: Float32Array[], gradients: Float32Array[], settings: object[]): number[];
  readState(index: number, array: string, offset: number, values: Float32Array): void;
  writeState(index: number, array: string, offset: number, values: Float32Array): void;
  found(index: number): Found;
  setFound(index: number, found: Found): void;
  dispose(): void;
}
type Precision = 'float16' | 'bfloat16' | 'float32';

/** A parameter of ROOT with these matrices, one after another. */
function matrices(...shapes: Shape[]): Layout {
  let size = 0;
  const placed = shapes.map((shape) => {
    const offset = size;
    size += shape.rows * shape.columns;
    return { ...shape, offset };
  });
  return { size, matrices: placed };
}

/** A parameter of AdamW. */
const moments = (size: number): Layout => ({ size, matrices: [] });

const robust = { quantile: 0.99, scale: 1, growth: 2 };
const coefficients = Float64Array.from([1, 2, 3, 4].flatMap(() => [2, -1.5, 0.5]));

function settings(layouts: readonly Layout[], step: number, options: Options): object[] {
  const { lr = 0.02, weightDecay = 0.1, nesterov = true, cautious = false } = options;
  const { threshold = null, gradientThreshold = robust, normalize = null } = options;
  return layouts.map(({ matrices: list }) =>
    list.length === 0
      ? { lr, beta1: 0.9, beta2: 0.95, eps: 1e-8, weightDecay, step, cautious, gradientThreshold }
      : {
          ...{ lr, momentum: 0.95, nesterov, weightDecay, cautious, threshold, gradientThreshold, normalize },
          matrices: list.map(() => ({ updateScale: 1, coefficients })),
        },
  );
}

/** A model on a device: data, and the optimizer that steps on them. */
class Model {
  readonly data: Float32Array[];
  readonly optimizer: Optimizer;
  #step = 0;

  constructor(
    readonly layouts: readonly Layout[],
    where: string,
    precision: Precision = 'float32',
  ) {
    this.data = layouts.map(({ size }, i) => gaussian(size, i + 1));
    this.optimizer = new (addon().Optimizer)(where, 1, precision, true, layouts) as unknown as Optimizer;
  }

  step(gradients: Float32Array[], options: Options): number[] {
    const refused = this.optimizer.stepSync(this.data, gradients, settings(this.layouts, this.#step + 1, options));
    if (refused.length === 0) this.#step++;
    return refused;
  }

  states(): State[] {
    return this.layouts.map((layout, i) => {
      const { normalizes, ...thresholds } = this.optimizer.found(i);
      const numbers = Object.entries(thresholds).map(([name, list]) => [
        name,
        Float64Array.from(list as (number | null)[], (one) => one ?? NaN),
      ]);
      const arrays = arraysOf(layout, normalizes === true).map(([name, size]) => {
        const values = new Float32Array(size);
        this.optimizer.readState(i, name, 0, values);
        return [name, values];
      });
      return Object.fromEntries([...arrays, ...numbers]) as State;
    });
  }

  /** Takes over the state of another model. */
  copyState(other: Model): void {
    other.states().forEach((state, i) => {
      const found = other.optimizer.found(i);
      for (const [name] of arraysOf(this.layouts[i]!, found['normalizes'] === true)) {
        this.optimizer.writeState(i, name, 0, state[name] as Float32Array);
      }
      this.optimizer.setFound(i, found);
    });
  }

  snapshot(): string[] {
    return this.states().flatMap((state, i) => [
      bits(this.data[i]!),
      ...Object.entries(state).map(([name, values]) => `${name} ${String(values)}`),
    ]);
  }
}

/** The arrays of a parameter's state, and their lengths. */
function arraysOf({ size, matrices: list }: Layout, normalizes: boolean): [string, number][] {
  if (list.length === 0) {
    return [
      ['expAvg', size],
      ['expAvgSq', size],
    ];
  }
  const rows = list.reduce((sum, one) => sum + (one.inOut === true ? one.columns : one.rows), 0);
  return [['momentumBuffer', size], ...(normalizes ? [['rowSecondMoment', rows] as [string, number]] : [])];
}

/** How far two arrays are apart, relative to the second one; 0 where they are equal. */
function distance(a: Float32Array, b: Float32Array): number {
  return a.every((value, i) => value === b[i]) ? 0 : relativeError(a, b);
}

/** Thresholds and momentum have to have the same bits. What products go into may differ by their rounding. */
function expectAlike(there: Model, here: Model, limit = 1e-5): void {
  const expected = here.states();
  there.states().forEach((state, i) => {
    const other = expected[i]!;
    expect(Object.keys(state)).toEqual(Object.keys(other));
    for (const [name, values] of Object.entries(state)) {
      if (name === 'rowSecondMoment' && values !== null) {
        const error = distance(values as Float32Array, other[name] as Float32Array);
        expect({ i, name, error: error < limit ? 'small' : error }).toEqual({ i, name, error: 'small' });
      } else {
        expect([i, name, values]).toEqual([i, name, other[name]]);
      }
    }
    const error = distance(there.data[i]!, here.data[i]!);
    expect({ i, error: error < limit ? 'small' : error }).toEqual({ i, error: 'small' });
  });
}

const shapes: Layout[] = [
  matrices({ rows: 96, columns: 40 }),
  matrices({ rows: 40, columns: 96 }),
  matrices({ rows: 40, columns: 96 }),
  matrices({ rows: 33, columns: 33 }),
  matrices({ rows: 17, columns: 131 }, { rows: 17, columns: 131 }, { rows: 5, columns: 3 }),
  matrices({ rows: 1, columns: 1 }),
  matrices({ rows: 1, columns: 29 }),
  matrices({ rows: 29, columns: 1 }),
  moments(1),
  moments(4099),
  moments(64),
];
const inOut = shapes.map((layout) => ({ ...layout, matrices: layout.matrices.map((m) => ({ ...m, inOut: true })) }));

/** Gradients of a step; every third one is a hundred times as large as the others. */
function gradientsOf(layouts: readonly Layout[], step: number): Float32Array[] {
  return layouts.map(({ size }, i) => gaussian(size, 100 * step + i).map((x) => (step % 3 === 0 ? 100 * x : x)));
}

const variants: Record<string, Options> = {
  'quantile and growth limit': {},
  'without a growth limit': { gradientThreshold: { ...robust, growth: null } },
  'robust deviations': { gradientThreshold: { quantile: 0.5, scale: 3.5 / 0.6745, growth: 1.5 } },
  'the largest value': { gradientThreshold: { quantile: 1, scale: 0.25, growth: 2 } },
  'the smallest value': { gradientThreshold: { quantile: 0, scale: 1, growth: 2 } },
  'without Nesterov': { nesterov: false },
  'both thresholds': { threshold: { quantile: 0.9, scale: 1.25 } },
  'threshold of the momentum alone': { threshold: { quantile: 0.9, scale: 1 }, gradientThreshold: null },
  'rows alone': { gradientThreshold: null, normalize: { beta2: 0.9 } },
  'cautious alone': { gradientThreshold: null, cautious: true, weightDecay: 2 },
  all: { threshold: { quantile: 0.9, scale: 1 }, normalize: { beta2: 0.95 }, cautious: true, weightDecay: 2 },
  'without decay': { normalize: { beta2: 0.95 }, cautious: true, weightDecay: 0 },
};

const limits: [Precision, number][] = [
  ['float32', 1e-5],
  ['float16', 1e-2],
  ['bfloat16', 5e-2],
];

onCuda('the CUDA backend and the CPU step alike', () => {
  test.each(Object.entries(variants))('%s', (_, options) => {
    for (const layouts of [shapes, inOut]) {
      const [there, here] = [new Model(layouts, device), new Model(layouts, 'cpu')];
      for (let step = 1; step <= 4; step++) {
        for (const model of [there, here]) expect(model.step(gradientsOf(layouts, step), options)).toEqual([]);
        expectAlike(there, here);
      }
    }
  });

  test.each(limits)('in %s', (precision, limit) => {
    for (const layouts of [shapes, inOut]) {
      const [there, here] = [new Model(layouts, device, precision), new Model(layouts, 'cpu')];
      for (let step = 1; step <= 3; step++) {
        for (const model of [there, here]) model.step(gradientsOf(layouts, step), variants['all']!);
        expectAlike(there, here, limit);
      }
    }
  });

  test('with more rows and columns than a pass takes at once', () => {
    const long = emulated ? 3001 : 70_001;
    for (const turned of [false, true]) {
      const layouts = [
        matrices({ rows: long, columns: 9, inOut: turned }),
        matrices({ rows: 9, columns: long, inOut: turned }),
      ];
      const [there, here] = [new Model(layouts, device), new Model(layouts, 'cpu')];
      for (let step = 1; step <= 2; step++) {
        for (const model of [there, here]) model.step(gradientsOf(layouts, step), variants['all']!);
        expectAlike(there, here);
      }
    }
  });

  test('with many matrices and parameters', () => {
    const layouts = [
      matrices(...Array.from({ length: 101 }, () => ({ rows: 4, columns: 3 }))),
      ...Array.from({ length: 101 }, (_, i) => moments(1 + ((7 * i) % 50))),
    ];
    const [there, here] = [new Model(layouts, device), new Model(layouts, 'cpu')];
    for (let step = 1; step <= 3; step++) {
      for (const model of [there, here]) model.step(gradientsOf(layouts, step), variants['all']!);
      expectAlike(there, here);
    }
  });

  test('where settings change from step to step, and where parameters have different ones', () => {
    const [there, here] = [new Model(shapes, device), new Model(shapes, 'cpu')];
    Object.values(variants).forEach((options, i) => {
      for (const model of [there, here]) {
        const list = settings(shapes, i + 1, options).map((one, p) => (p % 2 === 0 ? one : mixed(p, i + 1)));
        expect(model.optimizer.stepSync(model.data, gradientsOf(shapes, i + 1), list)).toEqual([]);
      }
      expectAlike(there, here);
    });
    function mixed(p: number, step: number): object {
      return settings(shapes, step, { gradientThreshold: p % 4 === 1 ? null : robust })[p]!;
    }
  });

  test('where a state is handed on', () => {
    const [there, here] = [new Model(shapes, device), new Model(shapes, 'cpu')];
    const options = variants['all']!;
    for (const model of [there, here]) model.step(gradientsOf(shapes, 1), options);
    there.copyState(here);
    here.data.forEach((data, i) => there.data[i]!.set(data));
    for (const model of [there, here]) model.step(gradientsOf(shapes, 3), options);
    expectAlike(there, here);
  });
});

const awkward: Record<string, (size: number, step: number) => Float32Array> = {
  'all zero': (size) => new Float32Array(size),
  'zero at first': (size, step) => (step === 1 ? new Float32Array(size) : gaussian(size, step)),
  'zero between': (size, step) => (step === 2 ? new Float32Array(size) : gaussian(size, step)),
  'all equal': (size) => new Float32Array(size).fill(-2.5),
  'one spike': (size, step) => gaussian(size, step).map((x, i) => (i === size - 1 ? 1e30 : x)),
  'a spike among zeros': (size) => Float32Array.from({ length: size }, (_, i) => (i === 0 ? 1e30 : 0)),
  denormals: (size, step) => gaussian(size, step).map((x) => x * 1e-42),
  'negative zeros': (size) => new Float32Array(size).fill(-0),
};

onCuda('awkward gradients', () => {
  test.each(Object.entries(awkward))('%s', (name, fill) => {
    for (const options of [variants['all']!, { ...variants['all']!, threshold: null }]) {
      const layouts = [matrices({ rows: 20, columns: 31 }), matrices({ rows: 20, columns: 31, inOut: true })];
      layouts.push(moments(name.includes('spike') ? 1000 : 77));
      const [there, here] = [new Model(layouts, device), new Model(layouts, 'cpu')];
      for (let step = 1; step <= 3; step++) {
        const gradients = layouts.map(({ size }) => fill(size, step));
        // Where more than a hundredth of the values are the spike, its square is too large for AdamW.
        const refused = here.step(gradients, options);
        expect(there.step(gradients, options)).toEqual(refused);
        expect(there.data.every((one) => one.every(Number.isFinite))).toBe(true);
        expectAlike(there, here);
      }
    }
  });

  test('a spike stays out of the momentum', () => {
    const layouts = [matrices({ rows: 20, columns: 31 })];
    const model = new Model(layouts, device);
    const gradient = gaussian(620, 1);
    gradient[7] = 1e30;
    model.step([gradient], {});
    expect(Math.max(...(model.states()[0]!['momentumBuffer'] as Float32Array))).toBeLessThan(5);
  });
});

onCuda('a step', () => {
  const layouts = [matrices({ rows: 12, columns: 20 }), matrices({ rows: 20, columns: 12, inOut: true }), moments(300)];
  const options = variants['all']!;
  const huge = (size: number) => new Float32Array(size).fill(3e38);

  test.each<[string, (size: number) => Float32Array, number]>([
    ['NaN', (size) => gaussian(size, 5).fill(NaN, 3, 4), 0],
    ['an infinity that a clip would hide', (size) => gaussian(size, 5).fill(-Infinity, 3, 4), 0],
    ['an infinity in AdamW', (size) => gaussian(size, 5).fill(Infinity, 3, 4), 2],
    ['NaN in AdamW', (size) => gaussian(size, 5).fill(NaN, 3, 4), 2],
    ['a momentum that would overflow', huge, 1],
    ['a second moment that would overflow', huge, 2],
  ])('that is refused for %s changes nothing', (_, fill, bad) => {
    const unlimited = { ...options, gradientThreshold: { quantile: 0.9, scale: 1, growth: null } };
    const [gap, whole] = [new Model(layouts, device), new Model(layouts, device)];
    for (let step = 1; step <= 3; step++) {
      const gradients = gradientsOf(layouts, step);
      const wrong = gradients.map((one, i) => (i === bad ? fill(one.length) : one));
      const before = gap.snapshot();
      expect(gap.step(wrong, unlimited)).toEqual([bad]);
      expect(gap.snapshot()).toEqual(before);
      for (const model of [gap, whole]) expect(model.step(gradients, unlimited)).toEqual([]);
      expect(gap.snapshot()).toEqual(whole.snapshot());
    }
  });

  test('with a learning rate of 0 advances the state and leaves the data', () => {
    const model = new Model(layouts, device);
    const before = model.data.map(bits);
    const moved = () => model.states().map((state) => Object.values(state).map((values) => String(values)));
    let last = moved();
    for (let step = 1; step <= 2; step++) {
      expect(model.step(gradientsOf(layouts, step), { ...options, lr: 0 })).toEqual([]);
      expect(model.data.map(bits)).toEqual(before);
      const now = moved();
      now.forEach((state, i) => {
        state.forEach((values, k) => {
          expect(values).not.toBe(last[i]![k]);
        });
      });
      last = now;
    }
  });

  test('divides rows by the root of v and keeps the norm', () => {
    for (const turned of [false, true]) {
      const [rows, columns] = [24, 36];
      const list = [matrices({ rows, columns, inOut: turned })];
      const gradient = gaussian(rows * columns, 3).map(
        (x, i) => x * (1 + (i % columns)) * (1 + Math.floor(i / columns)),
      );
      const direction = (normalize: { beta2: number } | null) => {
        const model = new Model(list, device);
        model.data[0]!.fill(0);
        model.step([gradient], { lr: 1, weightDecay: 0, gradientThreshold: null, normalize });
        return { x: model.data[0]!, v: model.states()[0]!['rowSecondMoment'] as Float32Array };
      };
      const plain = direction(null);
      const normalized = direction({ beta2: 0.95 });
      const count = turned ? columns : rows;
      const rowOf = (i: number) => (turned ? i % columns : Math.floor(i / columns));
      const squares = new Float64Array(count);
      plain.x.forEach((x, i) => (squares[rowOf(i)]! += x * x));
      const v = squares.map((sum) => (0.05 * sum * count) / (rows * columns));
      expect(relativeError(normalized.v, Float32Array.from(v))).toBeLessThan(1e-5);
      const divided = plain.x.map((x, i) => x / Math.sqrt(v[rowOf(i)]!));
      const scale = Math.hypot(...plain.x) / Math.hypot(...divided);
      expect(
        relativeError(
          normalized.x,
          divided.map((x) => x * scale),
        ),
      ).toBeLessThan(1e-5);
    }
  });
});
