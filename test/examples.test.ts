import { spawnSync } from 'node:child_process';
import path from 'node:path';

const root = path.join(__dirname, '..');

/** Runs an example as its first lines say, and returns what it printed. */
function run(example: string, ...args: string[]): string {
  const command = ['--import', 'tsx', path.join('examples', example), ...args];
  const { status, stdout, stderr } = spawnSync(process.execPath, command, { cwd: root, encoding: 'utf8' });
  if (status !== 0) throw new Error(`${example} ended with ${status}\n${stderr}`);
  return stdout;
}

/** The numbers after a word. */
function numbersAfter(word: string, text: string): number[] {
  return [...text.matchAll(new RegExp(`${word} (\\d+\\.\\d+)`, 'g'))].map(([, number]) => Number(number));
}

test('the network with gradients by hand learns digits', () => {
  const output = run('mlp.ts', '--steps', '80');
  const [, before, after] = /loss (\S+) → (\S+)/.exec(output)!;
  expect(Number(after)).toBeLessThan(0.8 * Number(before));
  expect(Number(/(\S+) % of 1996/.exec(output)![1])).toBeGreaterThan(60);
});

test('the convolutional network of TensorFlow.js learns digits', () => {
  const output = run('digits-tfjs.ts', '--steps', '25');
  const [before, after] = numbersAfter('loss', output);
  expect(after).toBeLessThan(0.8 * before!);
});

test('the transformer of jax-js learns a text', () => {
  const [before, ...later] = numbersAfter('loss', run('transformer-jax.ts', '--steps', '60'));
  expect(later.at(-1)).toBeLessThan(0.85 * before!);
});
