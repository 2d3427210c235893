import { median } from '../../common/numbers.js';
import { milliseconds } from '../../common/time.js';

/** How long a task is measured in one turn: at least so many calls and at least so many milliseconds. */
export interface Least {
  readonly calls: number;
  readonly time: number;
}

/**
 * Median milliseconds of each task of each contestant in each of several rounds. Tasks take turns, so that what else
 * the machine does meets all of them. One call before each turn does not count: it finds caches and threads as another
 * task has left them.
 */
export function inTurns<Task extends string>(
  rounds: number,
  contestants: readonly Readonly<Record<Task, () => unknown>>[],
  least: Least,
): Record<Task, number>[][] {
  const measure = (tasks: Readonly<Record<Task, () => unknown>>) => {
    const entries = Object.entries<() => unknown>(tasks).map(([name, call]) => [name, takeTurn(call, least)] as const);
    return Object.fromEntries(entries) as Record<Task, number>;
  };
  return Array.from({ length: rounds }, () => contestants.map(measure));
}

function takeTurn(call: () => unknown, { calls, time }: Least): number {
  call();
  const samples: number[] = [];
  for (const start = performance.now(); samples.length < calls || performance.now() - start < time;) {
    samples.push(milliseconds(call));
  }
  return median(samples);
}
