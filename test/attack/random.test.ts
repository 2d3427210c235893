import {
  AdamW,
  type AdamWGroup,
  type AdamWState,
  type Coefficients,
  type Device,
  type GradientThreshold,
  type GroupOptions,
  Muon,
  type MuonGroup,
  newtonSchulzCoefficients,
  type Optimizer,
  type OrthogonalState,
  Parameter,
  type ParameterOptions,
  type ParamGroup,
  Root,
  type RootGroup,
  type Triple,
} from '../../lib/index.js';
import * as reference from '../reference.js';
import { devicesUnderTest, gaussian, relativeError } from '../support.js';
import { attack, type Chance } from './support.js';

/*
 * Optimizers of random classes, groups, settings and shapes take a few steps beside the float64 reference. Their
 * settings are read from the groups, so that defaults are attacked too.
 */

const extents = [1, 1, 2, 3, 5, 8, 17, 31, 48, 49, 64, 97];

function randomParameter(name: string, chance: Chance): Parameter {
  const extent = () => chance.pick(extents);
  const small = () => chance.integer(1, 4);
  const options = chance.pick<() => Omit<ParameterOptions, 'name'>>([
    () => ({ shape: [extent(), extent()] }),
    () => ({ shape: [extent(), extent()] }),
    () => ({ shape: [extent(), extent()], layout: 'in-out' }),
    () => ({ shape: [1, extent()] }),
    () => ({ shape: [extent(), 1] }),
    () => ({ shape: [small(), extent(), extent()], stack: true }),
    () => ({ shape: [small(), extent(), extent()], stack: true, layout: 'in-out' }),
    () => ({ shape: [extent(), small(), small(), small()] }),
    () => ({ shape: [3 * small(), extent()], split: 3 }),
    () => ({ shape: [7, extent()], split: [4, 1, 2] }),
    () => ({ shape: [2, 3, extent()], stack: true, split: [1, 2] }),
    () => ({ shape: [extent()] }),
    () => ({ shape: [] }),
  ])();
  const one = new Parameter({ name, ...options });
  one.data.set(gaussian(one.size, chance.integer(1, 1e9)));
  return one;
}

const maybe = <T>(chance: Chance, value: () => T) => (chance.happens(0.5) ? { given: value() } : {}).given;

function randomGradientThreshold(chance: Chance): GradientThreshold | 'robust' | null {
  const growth = chance.pick([null, 1.01 + chance.next()]);
  return chance.pick([null, 'robust', { quantile: chance.next(), scale: 0.3 + 2 * chance.next(), growth }]);
}

function randomCoefficients(chance: Chance): Coefficients {
  const near = (value: number) => value + 0.06 * chance.next() - 0.03;
  const triple = (): Triple => [near(2), near(-1.5), near(0.5)];
  // Without `cans`, which amplifies the rounding of matrices of low rank (docs/architecture.md).
  return chance.pick<() => Coefficients>([
    () => chance.pick(['muon', 'polar-express', 'quintic', 'deepseek-v4', 'cubic5', 'paper']),
    () => triple(),
    () => Array.from({ length: chance.integer(1, 4) }, triple),
  ])();
}

function commonSettings(chance: Chance) {
  return {
    lr: maybe(chance, () => 0.2 * chance.next()),
    weightDecay: maybe(chance, () => chance.pick([0, chance.next()])),
    weightDecayKind: maybe(chance, () => chance.pick(['decoupled', 'cautious'] as const)),
    gradientThreshold: maybe(chance, () => randomGradientThreshold(chance)),
  };
}

function matrixSettings(chance: Chance) {
  return {
    ...commonSettings(chance),
    momentum: maybe(chance, () => chance.pick([0, chance.next()])),
    nesterov: maybe(chance, () => chance.happens(0.5)),
    // To fit the default's coefficients to a shape takes a tenth of a second. A few shapes have to do.
    coefficients: chance.happens(0.05) ? undefined : randomCoefficients(chance),
    steps: maybe(chance, () => chance.integer(4, 6)),
    lrScale: maybe(chance, () => chance.pick(['rms', 'spectral', 'none'] as const)),
    normalize: maybe(chance, () => chance.pick(['rows', null] as const)),
    beta2: maybe(chance, () => chance.next()),
  };
}

const threshold = (chance: Chance) =>
  maybe(chance, () => chance.pick([null, 'robust' as const, { quantile: chance.next(), scale: 0.3 + chance.next() }]));

function vectorSettings(chance: Chance) {
  return {
    ...commonSettings(chance),
    betas: maybe(chance, () => [chance.next(), 0.5 + 0.499 * chance.next()] as const),
    eps: maybe(chance, () => 10 ** -chance.integer(4, 12)),
  };
}

function randomOptimizer(device: Device, chance: Chance): Optimizer {
  const params = Array.from({ length: chance.integer(1, 5) }, (_, i) => randomParameter(`w${i}`, chance));
  const common = { device, threads: chance.integer(0, 3) };
  if (chance.happens(0.25)) {
    const groups = params.map((one) => ({ params: [one], ...vectorSettings(chance) }));
    return new AdamW(chance.happens(0.5) ? groups : params, { ...common, ...vectorSettings(chance) });
  }
  const groups = params.map((one): GroupOptions => {
    const algorithm = one.matrices.length === 0 ? 'adamw' : chance.pick(['root', 'muon', 'adamw'] as const);
    if (algorithm === 'adamw') return { params: [one], algorithm, ...vectorSettings(chance) };
    const settings = { params: [one], ...matrixSettings(chance) };
    return algorithm === 'muon' ? { ...settings, algorithm } : { ...settings, algorithm, threshold: threshold(chance) };
  });
  const list = chance.happens(0.5) ? groups : params;
  const adamw = chance.happens(0.5) ? undefined : vectorSettings(chance);
  const options = { ...common, precision: 'float32', adamw, ...matrixSettings(chance) } as const;
  return chance.happens(0.5) ? new Muon(list, options) : new Root(list, { ...options, threshold: threshold(chance) });
}

/** Takes a step of the reference after one of the optimizer's. Returns the largest relative error. */
type Twin = (step: number) => number;

/** The mean of past thresholds; null before the first. */
interface Past {
  mean: number | null;
}

/** G̃ and ε_G, which is null where nothing is clipped. */
function clip(gradient: Float64Array, settings: GradientThreshold | null, past: Past): [Float64Array, number | null] {
  if (settings === null) return [gradient, null];
  const state = { ...settings, mean: past.mean };
  const { clipped, threshold } = reference.clipGradient(gradient, state);
  past.mean = state.mean;
  return [clipped, threshold];
}

/**
 * Decays and moves `data`. With caution only elements decay whose weight and direction have one sign. Where a direction
 * is too near to 0 for float32 to tell its sign, `found` decides.
 * @returns how far the data have moved
 */
function move(
  data: Float64Array,
  found: ArrayLike<number>,
  direction: Float64Array,
  rate: number,
  { lr, weightDecay, weightDecayKind }: ParamGroup,
): number {
  const before = data.slice();
  const least = (1e-3 * reference.frobenius(direction)) / Math.sqrt(direction.length);
  data.forEach((value, i) => {
    const x = direction[i]!;
    const whole = value - rate * x;
    const decayed = whole - lr * weightDecay * value;
    const isUndecided = Math.abs(x) < least;
    const decays = isUndecided ? Math.abs(found[i]! - decayed) < Math.abs(found[i]! - whole) : value * x >= 0;
    data[i] = weightDecayKind === 'decoupled' || decays ? decayed : whole;
  });
  return reference.frobenius(data.map((one, i) => one - before[i]!));
}

function arrayError(found: ArrayLike<number>, wanted: Float64Array): number {
  return reference.frobenius(wanted) === 0 ? reference.frobenius(found) : relativeError(found, wanted);
}

function numberError(found: number | null | undefined, wanted: number | null): number {
  if (typeof found !== 'number' || wanted === null) return found === wanted ? 0 : Infinity;
  return wanted === 0 ? Math.abs(found) : Math.abs(found / wanted - 1);
}

/** The error of data, as a part of the way that they have gone, save for what their rounding to float32 may be. */
function dataError(found: ArrayLike<number>, wanted: Float64Array, way: number): number {
  const difference = reference.frobenius(wanted.map((one, i) => one - found[i]!));
  const rounding = 1e-6 * reference.frobenius(wanted);
  return difference <= rounding ? 0 : (difference - rounding) / way;
}

function adamwTwin(parameter: Parameter, group: AdamWGroup, optimizer: Optimizer): Twin {
  const data = Float64Array.from(parameter.data);
  let way = 0;
  const [first, second] = [new Float64Array(parameter.size), new Float64Array(parameter.size)];
  const past: Past = { mean: null };
  return (step) => {
    const [gradient, threshold] = clip(Float64Array.from(parameter.grad), group.gradientThreshold, past);
    // At a rate of −1 and without decay a step turns zeros into its direction.
    const direction = new Float64Array(parameter.size);
    reference.adamwStep(direction, first, second, gradient, step, { ...group, lr: -1, weightDecay: 0 });
    way += move(data, parameter.data, direction, group.lr, group);
    const state = optimizer.stateOf(parameter) as AdamWState;
    return Math.max(
      dataError(parameter.data, data, way),
      arrayError(state.expAvg, first),
      arrayError(state.expAvgSq, second),
      numberError(state.gradientThreshold, threshold),
      numberError(state.gradientScale, threshold === null ? null : (past.mean ?? 0)),
    );
  };
}

const lrScales = {
  rms: (outputs: number, inputs: number) => 0.2 * Math.sqrt(Math.max(outputs, inputs)),
  spectral: (outputs: number, inputs: number) => Math.sqrt(Math.max(1, outputs / inputs)),
  none: () => 1,
};

/** @param index that of one of the parameter's matrices */
function matrixTwin(parameter: Parameter, group: MuonGroup | RootGroup, optimizer: Optimizer, index: number): Twin {
  const { offset, rows, columns } = parameter.matrices[index]!;
  const isTurned = parameter.layout === 'in-out';
  const [outputs, inputs] = isTurned ? [columns, rows] : [rows, columns];
  // Rows of the matrices before, as split blocks have them. All matrices of a stack that is turned have as many.
  const firstOutput = isTurned ? index * outputs : offset / columns;
  /** This matrix of the parameter, with its outputs as rows. */
  const part = (array: Float32Array) => {
    const own = array.subarray(offset, offset + rows * columns);
    return isTurned ? reference.transpose(own, rows, columns) : Float64Array.from(own);
  };
  const data = part(parameter.data);
  let way = 0;
  const [buffer, moment] = [new Float64Array(data.length), new Float64Array(outputs)];
  const past: Past = { mean: null };
  return () => {
    const [gradient, gradientThreshold] = clip(part(parameter.grad), group.gradientThreshold, past);
    const u = reference.momentum(buffer, gradient, group.momentum, group.nesterov);
    const settings = group.algorithm === 'root' ? group.threshold : null;
    const threshold = settings && reference.threshold(u, settings.quantile, settings.scale);
    const kept = threshold ? reference.softThreshold(u, threshold).base : u;
    const triples = newtonSchulzCoefficients([rows, columns], group.coefficients, group.steps);
    const x = reference.newtonSchulz(kept, outputs, inputs, triples);
    const direction = group.normalize === null ? x : reference.normalizeRows(x, inputs, moment, group.beta2);
    way += move(data, part(parameter.data), direction, group.lr * lrScales[group.lrScale](outputs, inputs), group);
    const state = optimizer.stateOf(parameter) as OrthogonalState;
    const ofRows = state.rowSecondMoment?.subarray(firstOutput, firstOutput + outputs);
    return Math.max(
      dataError(part(parameter.data), data, way),
      arrayError(part(state.momentumBuffer), buffer),
      numberError(state.thresholds[index], threshold),
      numberError(state.gradientThresholds[index], gradientThreshold),
      numberError(state.gradientScales[index], gradientThreshold === null ? null : (past.mean ?? 0)),
      ofRows === undefined ? 0 : arrayError(ofRows, moment),
    );
  };
}

function twinsOf(optimizer: Optimizer): Twin[] {
  return optimizer.paramGroups.flatMap((group) =>
    group.params.flatMap((one): Twin | Twin[] => {
      if (group.algorithm === 'adamw') return adamwTwin(one, group, optimizer);
      return one.matrices.map((_, i) => matrixTwin(one, group, optimizer, i));
    }),
  );
}

function fillGradient(one: Parameter, chance: Chance): void {
  const scale = chance.pick([1, 1, 1, 10 ** (6 * chance.next() - 3), 0]);
  const power = chance.pick([1, 1, 3]);
  one.grad.set(gaussian(one.size, chance.integer(1, 1e9)).map((value) => scale * value ** power));
}

describe.each(devicesUnderTest())('on %s', (device) => {
  let largest = 0;
  attack(
    `random optimizers against float64 on ${device}`,
    { small: 40, large: 1500, note: () => `largest relative error ${largest.toExponential(1)}` },
    async (chance) => {
      using optimizer = randomOptimizer(device, chance);
      const twins = twinsOf(optimizer);
      for (let step = 1; step <= 4; step++) {
        for (const group of optimizer.paramGroups) for (const one of group.params) fillGradient(one, chance);
        const { applied } = chance.happens(0.5) ? optimizer.stepSync() : await optimizer.step();
        expect(applied).toBe(true);
        const error = Math.max(...twins.map((compare) => compare(step)));
        largest = Math.max(largest, error);
        const message = `An error of ${error} in step ${step} of ${describeGroups(optimizer)}`;
        if (!(error < tolerance)) throw new Error(message);
      }
    },
  );
});

/** float32 was seen to leave 1e-4, on matrices that are nearly singular. */
const tolerance = 5e-4;

function describeGroups({ constructor, paramGroups }: Optimizer): string {
  const shapes = paramGroups.map((group) => ({ ...group, params: group.params.map(({ shape }) => shape) }));
  return `${constructor.name} ${JSON.stringify(shapes)}`;
}
