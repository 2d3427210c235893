import { median } from '../../common/numbers.js';
import { milliseconds } from '../../common/time.js';

/** The least that a task is measured in one turn: a number of calls and a number of milliseconds. */
export interface Least {
  readonly calls: number;
  readonly time: number;
}

/**
 * Returns the median milliseconds of each task of each contestant in each of several rounds. Tasks take turns, so that
 * other work of the machine meets all of them. One call before each turn does not count, because it finds caches and
 * threads as another task has left them.
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
