import type { Delay, Delays } from './programs/delays.js';
import { attack, isLarge, skipAttack, startProgram } from './support.js';

/*
 * How long calls on a hundred million parameters keep the event loop from running. `npm test` asserts no times.
 */

/** Milliseconds, and which of a call's figures has to lie below. */
const limits = [
  ['step', 'p99', 10],
  ['save', 'most', 50],
  ['load', 'most', 50],
] as const;

let measuring: Promise<Delays> | undefined;

async function measure(): Promise<Delays> {
  const { ended, lines } = startProgram('delays');
  expect(await ended).toEqual({ status: 0, signal: null, stderr: '' });
  return JSON.parse(lines[0]!) as Delays;
}

for (const [call, figure, limit] of limits) {
  const name = `${call}() of 100 M parameters leaves the event loop free`;
  if (!isLarge) {
    skipAttack(name, 'it takes gigabytes, and measures times');
    continue;
  }
  const found: Delay[] = [];
  const largest = (key: keyof Delay) => Math.max(...found.map((one) => one[key])).toFixed(1);
  const note = () => `delays of ${largest('p99')} ms at p99, ${largest('most')} ms at most`;
  let round = 0;
  attack(name, { small: 0, large: 3, note }, async () => {
    const delay = (await (measuring ??= measure()))[call][round++]!;
    found.push(delay);
    if (delay[figure] >= limit) throw new Error(`${delay[figure]} ms rather than less than ${limit}`);
  });
}
