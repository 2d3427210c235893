import type * as native from '../../binding.js';
import { checkArray, firstNonFinite } from '../arrays.js';
import { expected } from '../errors.js';
import type { Parameter } from '../parameter.js';
import { checkObject, integer } from '../validate.js';
import type { Algorithm } from './options.js';

/** A state in the form that the addon takes. */
export interface CheckedState {
  readonly step: number;
  readonly arrays: readonly (readonly [native.StateArray, Float32Array])[];
  readonly found: native.Found;
}

const stepRule = integer(0, 1e15);

/**
 * Checks a state that `stateOf` has returned for such a parameter.
 * @throws RootError ERR_INVALID_ARGUMENT, ERR_SHAPE_MISMATCH
 */
export function checkState(parameter: Parameter, algorithm: Algorithm, value: unknown): CheckedState {
  const label = `the state of parameter ${JSON.stringify(parameter.name)}`;
  const given = checkObject(value, label);
  const step = stepRule(given['step'], `step of ${label}`);
  const array = (key: native.StateArray, size: number, least: number) => {
    const name = `${key} of ${label}`;
    const checked = checkArray(given[key], size, name);
    const wrong = firstNonFinite(checked);
    if (wrong !== undefined) throw expected(name, 'finite', wrong);
    if (!checked.every((one) => one >= least)) throw expected(name, `at least ${least}`, 'a lesser value');
    return [key, checked] as const;
  };
  const numbers = (key: string, from: unknown, count: number) => {
    const valid = (one: unknown) => typeof one === 'number' && one >= 0 && Number.isFinite(one);
    const isNone = (one: unknown) => one === null;
    if (!Array.isArray(from) || from.length !== count || !(from.every(valid) || from.every(isNone))) {
      throw expected(`${key} of ${label}`, `${count} numbers of at least 0, or as many null`, from);
    }
    return [...(from as (number | null)[])];
  };
  if (algorithm === 'adamw') {
    const found = {
      gradientThresholds: numbers('gradientThreshold', [given['gradientThreshold']], 1),
      gradientScales: numbers('gradientScale', [given['gradientScale']], 1),
    };
    return { step, arrays: [array('expAvg', parameter.size, -Infinity), array('expAvgSq', parameter.size, 0)], found };
  }
  const count = parameter.matrices.length;
  const normalizes = given['rowSecondMoment'] !== null;
  const found = {
    thresholds: numbers('thresholds', given['thresholds'], count),
    gradientThresholds: numbers('gradientThresholds', given['gradientThresholds'], count),
    gradientScales: numbers('gradientScales', given['gradientScales'], count),
    normalizes,
  };
  const momentum = array('momentumBuffer', parameter.size, -Infinity);
  return { step, arrays: normalizes ? [momentum, array('rowSecondMoment', parameter.outputs, 0)] : [momentum], found };
}
