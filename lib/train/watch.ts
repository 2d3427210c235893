import { triplesFor } from '../coefficients/option.js';
import { orthogonalize } from '../functions.js';
import type { Optimizer } from '../optimizer/base.js';
import type { MuonGroup, ParamGroup, RootGroup } from '../optimizer/groups.js';
import { orthogonalityError } from '../orthogonality.js';
import type { Parameter } from '../parameter.js';
import type { OrthogonalState, ParameterState } from '../optimizer/types.js';
import type { Watched } from './types.js';

/** Looks at what the last step did, while gradients and state are as it left them. */
export async function watchStep(
  optimizer: Optimizer,
  parameters: readonly Parameter[],
): Promise<Record<string, Watched>> {
  const seen: [string, Watched][] = [];
  for (const parameter of parameters) {
    const group = optimizer.paramGroups.find(({ params }) => params.includes(parameter))!;
    const state = optimizer.stateOf(parameter);
    const { name, grad, matrices } = parameter;
    if (group.algorithm === 'adamw' || !('momentumBuffer' in state)) {
      const { gradientThreshold, gradientScale } = state;
      const clipped = clipGradient(grad, state, growthOf(group));
      seen.push([name, { gradientThreshold, gradientScale, gradientClipped: shareLost(grad, clipped) }]);
      continue;
    }
    const names = watchedNames(parameter);
    for (let i = 0; i < matrices.length; i++) {
      seen.push([names[i]!, await watchMatrix(optimizer, parameter, i, group, state)]);
    }
  }
  return Object.fromEntries(seen);
}

/** What the figures of a parameter are called: by its name, with a number where it is several matrices. */
export function watchedNames({ name, matrices }: Parameter): string[] {
  return matrices.length < 2 ? [name] : matrices.map((_, i) => `${name}.${i}`);
}

async function watchMatrix(
  { device, precision, compensated }: Optimizer,
  parameter: Parameter,
  index: number,
  group: RootGroup | MuonGroup,
  state: OrthogonalState,
): Promise<Watched> {
  const { rows, columns } = parameter.matrices[index]!;
  const { gradient, kept, u, base } = replay(parameter, index, group, state);
  const { steps } = group;
  const direction = await orthogonalize(base, [rows, columns], {
    ...{ coefficients: triplesFor(rows, columns, group.coefficients, steps, parameter.name), steps },
    ...{ device: device.name, precision, compensated },
  });
  return {
    gradientThreshold: state.gradientThresholds[index]!,
    gradientScale: state.gradientScales[index]!,
    gradientClipped: shareLost(gradient, kept),
    threshold: state.thresholds[index]!,
    clipped: shareLost(u, base),
    orthogonalityError: orthogonalityError(direction, [rows, columns]).polar,
  };
}

/**
 * What the last step did to a matrix before it orthogonalised, while gradient and state are as the step left them:
 * clipped its gradient, added that to the momentum for U, and clipped U.
 */
export function replay(
  { grad, matrices }: Parameter,
  index: number,
  group: RootGroup | MuonGroup,
  state: OrthogonalState,
): Record<'gradient' | 'kept' | 'u' | 'base', Float32Array> {
  const { rows, columns, offset } = matrices[index]!;
  const [from, to] = [offset, offset + rows * columns];
  const gradient = grad.subarray(from, to);
  const [gradientThreshold, gradientScale] = [state.gradientThresholds[index]!, state.gradientScales[index]!];
  const kept = clipGradient(gradient, { gradientThreshold, gradientScale }, growthOf(group));
  const buffer = state.momentumBuffer.subarray(from, to);
  const u = group.nesterov ? buffer.map((value, i) => kept[i]! + group.momentum * value) : buffer;
  return { gradient, kept, u, base: clamp(u, state.thresholds[index]!) };
}

function growthOf({ gradientThreshold }: ParamGroup): number | null {
  return gradientThreshold?.growth ?? null;
}

/**
 * Returns the gradient as the last step took it: clipped at the threshold ε, and scaled so that the threshold is at
 * most `growth` times e, the running mean of the thresholds before it.
 */
export function clipGradient(
  gradient: Float32Array,
  { gradientThreshold: threshold, gradientScale: mean }: Pick<ParameterState, 'gradientThreshold' | 'gradientScale'>,
  growth: number | null,
): Float32Array {
  if (threshold === null || threshold === 0) return gradient;
  // The state holds the mean after the step, 0.9·e + 0.1·f·ε. With the factor f = 1 it was e; otherwise f·ε = growth·e.
  const unscaled = ((mean ?? threshold) - 0.1 * threshold) / 0.9;
  const scaled = growth !== null && growth * unscaled < threshold;
  const factor = scaled ? (growth * (mean ?? threshold)) / (0.9 + 0.1 * growth) / threshold : 1;
  return clamp(gradient, threshold).map((value) => factor * value);
}

function clamp(values: Float32Array, threshold: number | null): Float32Array {
  if (threshold === null || threshold === 0) return values;
  return values.map((value) => Math.min(Math.max(value, -threshold), threshold));
}

/** 1 − Σ|after| / Σ|before|; 0 where there is nothing. */
function shareLost(before: Float32Array, after: Float32Array): number {
  if (before === after) return 0;
  const [all, left] = [before, after].map((values) => values.reduce((sum, value) => sum + Math.abs(value), 0));
  return all === 0 ? 0 : Math.max(0, 1 - left! / all!);
}
