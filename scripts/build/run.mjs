import { spawn } from 'node:child_process';
import { constants } from 'node:os';

/** An error in words for the user, who has no use for a stack. */
export class BuildError extends Error {}

/**
 * Runs a program, and the processes that it starts, in a process group of their own. A signal to this process is passed
 * on to the group, and ends this process only after the group. npm in particular tidies up before it obeys, and no
 * other process may begin meanwhile. What the program prints goes to stderr.
 * @param {string} program
 * @param {string[]} args
 * @param {string} failure what the error says where the program fails
 * @param {{ cwd?: string, env?: NodeJS.ProcessEnv }} [options]
 */
export async function run(program, args, failure, options = {}) {
  const child = spawn(program, args, { ...options, stdio: ['ignore', 2, 2], detached: true });
  /** @type {NodeJS.Signals | undefined} */
  let interrupted;
  const forward = (/** @type {NodeJS.Signals} */ signal) => {
    interrupted = signal;
    if (child.pid !== undefined) process.kill(-child.pid, signal);
  };
  const signals = /** @type {const} */ (['SIGHUP', 'SIGINT', 'SIGTERM']);
  for (const signal of signals) process.on(signal, forward);
  const code = await new Promise((resolve, reject) => child.on('error', reject).on('exit', resolve));
  for (const signal of signals) process.off(signal, forward);
  if (interrupted) process.exit(128 + constants.signals[interrupted]);
  if (code !== 0) throw new BuildError(failure);
}

/**
 * Ends the process with one message instead of a stack, except where the fault is in the script itself.
 * @param {unknown} error
 */
export function fail(error) {
  const isExpected = error instanceof BuildError || (error instanceof Error && 'code' in error);
  console.error(isExpected ? `root-optimizer: ${error.message}` : error);
  process.exit(1);
}
