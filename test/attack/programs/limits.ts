/*
 * Works under limits of the system. Each line of its input is a task. It sets the limit, makes the call and lifts the
 * limit. Then it takes a step, and prints what has come of the call.
 *
 * It has to be a process of its own. Node lets writes beyond a limit of file size fail, but packages that Jest uses
 * have the signal end the process. And where memory is short, whatever asks for some may fail.
 */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { Muon, Parameter, RootError } from '../../../lib/index.js';
import { gaussian } from '../../support.js';
import { digest } from '../support.js';

export interface Task {
  readonly limit: 'fsize' | 'as';
  /** Bytes of a file; or bytes of memory besides those that are in use. */
  readonly bytes: number;
  readonly call: 'save' | 'load' | 'state' | 'step';
  readonly file: string;
}

export interface Answer {
  /** What the call came to under the limit: `done`, or the code of its error and its message. */
  readonly outcome: string;
  /** Whether a call that failed has changed nothing. */
  readonly isUnchanged: boolean;
}

/** @param shape that of the one matrix of the optimizer */
export function makeLimited(shape: readonly [number, number]): Muon {
  const w = new Parameter({ name: 'w', shape });
  w.data.set(gaussian(w.size, 1));
  w.grad.set(gaussian(w.size, 2));
  return new Muon([w], { device: 'cpu', coefficients: 'muon', steps: 1 });
}

function setLimit(limit: Task['limit'], bytes: number | 'unlimited'): void {
  execFileSync('prlimit', ['--pid', String(process.pid), `--${limit}=${bytes}:`]);
}

function memoryInUse(): number {
  return 1024 * Number(/VmSize:\s+(\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))![1]);
}

async function perform(optimizer: Muon, { limit, bytes, call, file }: Task): Promise<Answer> {
  const calls: Record<Task['call'], () => unknown> = {
    save: () => optimizer.save(file),
    load: () => optimizer.load(file),
    state: () => optimizer.stateOf(optimizer.paramGroups[0]!.params[0]!),
    step: () => optimizer.step(),
  };
  const before = digest(optimizer);
  // Otherwise garbage would be in use, which is memory to be had under the limit.
  gc!();
  setLimit(limit, limit === 'as' ? memoryInUse() + bytes : bytes);
  let outcome = 'done';
  try {
    await calls[call]();
  } catch (error) {
    if (!(error instanceof RootError)) throw error;
    outcome = `${error.code}: ${error.message}`;
  } finally {
    setLimit(limit, 'unlimited');
  }
  const isUnchanged = digest(optimizer) === before;
  if (outcome !== 'done' && limit === 'as') await calls[call]();
  await optimizer.step();
  return { outcome, isUnchanged };
}

async function main(): Promise<void> {
  const [rows, columns] = process.argv.slice(2).map(Number) as [number, number];
  const optimizer = makeLimited([rows, columns]);
  for await (const line of createInterface({ input: process.stdin })) {
    console.log(JSON.stringify(await perform(optimizer, JSON.parse(line) as Task)));
  }
}

if (require.main === module) void main();
