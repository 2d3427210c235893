import { expected } from '../errors.js';
import { checkKeys, checkObject, integer, interval, oneOf } from '../validate.js';

/** The factor on a group's own learning rate at a step, counted from 1. */
export type Schedule = (step: number) => number;

/** The course after the warm-up: a half cosine or a straight line down to `floor`, or 1 throughout. */
export type ScheduleKind = 'cosine' | 'linear' | 'constant';

export interface ScheduleOptions {
  /**
   * The number of steps over which the factor rises, in equal parts from 1 / `warmup` in step 1 to 1 in step `warmup`.
   * With the default 0 the factor starts at 1.
   */
  warmup?: number | undefined;
  /**
   * The value that the factor falls to, in [0, 1]; default 0. The factor reaches it just after the last step, so that
   * no step is lost on a rate of zero.
   */
  floor?: number | undefined;
}

const kindRule = oneOf('cosine', 'linear', 'constant');
const stepsRule = integer(1, Number.MAX_SAFE_INTEGER);
const floorRule = interval('[0, 1]');

/** The share of the way down that is left after a share `done` of the steps. */
const descents: Readonly<Record<ScheduleKind, (done: number) => number>> = {
  cosine: (done) => (1 + Math.cos(Math.PI * done)) / 2,
  linear: (done) => 1 - done,
  constant: () => 1,
};

/**
 * A learning-rate schedule of `steps` steps: a linear warm-up, then the course that `kind` names. The schedule is pure:
 * the same step gives the same factor.
 * @param steps the last step; after it the factor stays constant
 * @returns a function from a step (an integer from 1) to a factor in [0, 1]
 * @throws RootError ERR_INVALID_ARGUMENT
 */
export function makeSchedule(kind: ScheduleKind, steps: number, options: ScheduleOptions = {}): Schedule {
  const descent = descents[kindRule(kind, 'the kind of schedule')];
  const last = stepsRule(steps, 'steps');
  checkKeys(checkObject(options, 'the options of a schedule'), ['warmup', 'floor'], 'of a schedule');
  const warmup = Math.max(1, integer(0, last)(options.warmup ?? 0, 'warmup'));
  const floor = floorRule(options.floor ?? 0, 'floor');
  return (step) => {
    if (!Number.isInteger(step) || step < 1) throw expected('the step of a schedule', 'an integer of at least 1', step);
    if (step <= warmup) return step / warmup;
    const done = Math.min(1, (step - warmup) / (last + 1 - warmup));
    return floor + (1 - floor) * descent(done);
  };
}
