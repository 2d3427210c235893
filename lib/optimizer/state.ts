import type * as native from '../../binding.js';
import { checkArray, firstNonFinite } from '../arrays.js';
import { expected } from '../errors.js';
import type { Parameter } from '../parameter.js';
import { checkObject, integer } from '../validate.js';
import type { Algorithm } from './options.js';

const stepRule = integer(0, 1e15);

/**
 * Checks a state that `stateOf` has returned for such a parameter, and turns it into the addon's.
 * @throws RootError ERR_INVALID_ARGUMENT, ERR_SHAPE_MISMATCH
 */
export function checkState(
  parameter: Parameter,
  algorithm: Algorithm,
  value: unknown,
): { step: number; state: native.OrthogonalState | native.AdamWState } {
  const label = `the state of parameter ${JSON.stringify(parameter.name)}`;
  const given = checkObject(value, label);
  const step = stepRule(given['step'], `step of ${label}`);
  const array = (key: string, size: number, least: number) => {
    const name = `${key} of ${label}`;
    const checked = checkArray(given[key], size, name);
    const wrong = firstNonFinite(checked);
    if (wrong !== undefined) throw expected(name, 'finite', wrong);
    if (!checked.every((one) => one >= least)) throw expected(name, `at least ${least}`, 'a lesser value');
    return checked;
  };
  const numbers = (key: string, from: unknown, count: number) => {
    const valid = (one: unknown) => one === null || (typeof one === 'number' && one >= 0 && Number.isFinite(one));
    if (!Array.isArray(from) || from.length !== count || !from.every(valid)) {
      throw expected(`${key} of ${label}`, `${count} numbers of at least 0 or null`, from);
    }
    return Float64Array.from(from as (number | null)[], (one) => one ?? NaN);
  };
  if (algorithm === 'adamw') {
    const state = {
      expAvg: array('expAvg', parameter.size, -Infinity),
      expAvgSq: array('expAvgSq', parameter.size, 0),
      gradientThresholds: numbers('gradientThreshold', [given['gradientThreshold']], 1),
      gradientScales: numbers('gradientScale', [given['gradientScale']], 1),
    };
    return { step, state };
  }
  const { matrices, layout } = parameter;
  const rows = matrices.reduce((sum, one) => sum + (layout === 'in-out' ? one.columns : one.rows), 0);
  const lists = (['thresholds', 'gradientThresholds', 'gradientScales'] as const).map((key) => [
    key,
    numbers(key, given[key], matrices.length),
  ]);
  const state = {
    ...(Object.fromEntries(lists) as Record<'thresholds' | 'gradientThresholds' | 'gradientScales', Float64Array>),
    momentumBuffer: array('momentumBuffer', parameter.size, -Infinity),
    rowSecondMoment: given['rowSecondMoment'] === null ? null : array('rowSecondMoment', rows, 0),
  };
  return { step, state };
}
