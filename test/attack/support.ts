import { type ChildProcess, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { appendFileSync } from 'node:fs';
import path from 'node:path';
import { stripVTControlCharacters } from 'node:util';
import { type Optimizer, RootError, type RootErrorCode } from '../../lib/index.js';
import type { Row } from '../../scripts/attack.js';
import { makeRandom } from '../../scripts/common/random.js';

/*
 * An attack is a test that attempts one thing many times, each time with another seed, and records a row of the table
 * that `npm run attack` prints. `npm test` makes few attempts, and always the same ones.
 */

export const isLarge = process.env['ATTACK'] === 'large';
const firstSeed = Number(process.env['ATTACK_SEED'] ?? 1);

/** What an attempt draws its choices from. The same seed gives the same ones. */
export interface Chance {
  /** Uniform in [0, 1). */
  next(): number;
  /** A whole number from `least` to `most`. */
  integer(least: number, most: number): number;
  pick<T>(list: readonly T[]): T;
  /** Whether something of this probability happens. */
  happens(probability: number): boolean;
}

function makeChance(seed: number, purpose: string): Chance {
  const next = makeRandom(seed, purpose);
  const integer = (least: number, most: number) => least + Math.floor(next() * (most - least + 1));
  return {
    next,
    integer,
    pick: (list) => list[integer(0, list.length - 1)]!,
    happens: (probability) => next() < probability,
  };
}

export interface Attempts {
  /** How many `npm test` makes. */
  readonly small: number;
  /** How many `npm run attack` makes. */
  readonly large: number;
  /** Checks what all attempts together have left. */
  readonly afterwards?: () => void | Promise<void>;
  /** What the table says besides. */
  readonly note?: () => string;
}

/** Defines a test that makes all attempts, whatever they find, and fails with the seeds of those that threw. */
export function attack(
  name: string,
  { small, large, afterwards, note }: Attempts,
  attempt: (chance: Chance, seed: number) => void | Promise<void>,
): void {
  const attempts = isLarge ? large : small;
  const run = async () => {
    // This row stays if the process does not live to the end.
    record({ attack: name, attempts: 0, wrong: 1, seconds: 0, note: 'it did not end' });
    const start = performance.now();
    const found: string[] = [];
    for (let seed = firstSeed; seed < firstSeed + attempts; seed++) {
      await Promise.resolve()
        .then(() => attempt(makeChance(seed, name), seed))
        .catch((error: unknown) => found.push(`ATTACK_SEED=${seed}: ${textOf(error)}`));
    }
    await Promise.resolve()
      .then(afterwards)
      .catch((error: unknown) => found.push(`after all attempts: ${textOf(error)}`));
    const seconds = (performance.now() - start) / 1000;
    record({ attack: name, attempts, wrong: found.length, seconds, note: note?.() ?? '' });
    if (found.length > 0) {
      throw new Error(`${found.length} of ${attempts} attempts went wrong.\n${found.slice(0, 10).join('\n')}`);
    }
  };
  test(name, run, isLarge ? 3_600_000 : 60_000);
}

/** Leaves an attack out, and says why. */
export function skipAttack(name: string, reason: string): void {
  record({ attack: name, attempts: 0, wrong: 0, seconds: 0, note: reason });
  test.skip(`${name} (${reason})`, () => undefined);
}

function record(row: Row): void {
  const file = process.env['ATTACK_ROWS'];
  if (file !== undefined) appendFileSync(file, `${JSON.stringify(row)}\n`);
}

function textOf(error: unknown): string {
  const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
  return stripVTControlCharacters(text).slice(0, 2000);
}

/** Waits for what is to reject with a RootError of that code, and returns its message. */
export async function refusal(action: () => unknown, code: RootErrorCode): Promise<string> {
  try {
    await action();
  } catch (error) {
    if (error instanceof RootError && error.code === code) return error.message;
    throw error;
  }
  throw new Error(`Expected ${code}, got no error`);
}

/** A digest of everything that a checkpoint keeps of an optimizer: data, state and the number of steps. */
export function digest(optimizer: Optimizer): string {
  const hash = createHash('sha1');
  const take = (value: unknown) =>
    hash.update(
      ArrayBuffer.isView(value)
        ? new Uint8Array(value.buffer, value.byteOffset, value.byteLength)
        : `${JSON.stringify(value)};`,
    );
  for (const parameter of optimizer.paramGroups.flatMap(({ params }) => params)) {
    take(parameter.data);
    for (const value of Object.values(optimizer.stateOf(parameter))) take(value);
  }
  return hash.digest('hex');
}

export const wait = (milliseconds: number) => new Promise((resolve) => setTimeout(resolve, milliseconds));

/** A program of the folder `programs` in a process of its own, which may be killed and may crash. */
export interface Program {
  readonly process: ChildProcess;
  /** The lines that it has printed so far. */
  readonly lines: readonly string[];
  /** The next line that it prints and nobody has waited for yet; undefined where it ends before. */
  nextLine(): Promise<string | undefined>;
  readonly ended: Promise<{ status: number | null; signal: NodeJS.Signals | null; stderr: string }>;
}

export function startProgram(name: string, ...args: string[]): Program {
  const file = path.join(__dirname, 'programs', `${name}.ts`);
  const child = spawn(process.execPath, ['--require', 'tsx/cjs', '--expose-gc', file, ...args], {
    cwd: path.join(__dirname, '..', '..'),
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  const lines: string[] = [];
  let rest = '';
  let stderr = '';
  let waitedFor = 0;
  let hasEnded = false;
  let wake = (): void => undefined;
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    const parts = `${rest}${text}`.split('\n');
    rest = parts.pop()!;
    lines.push(...parts);
    wake();
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
  // A program that has ended takes no more input.
  child.stdin.on('error', () => undefined);
  const ended = new Promise<Awaited<Program['ended']>>((resolve) => {
    child.on('close', (status, signal) => {
      hasEnded = true;
      wake();
      resolve({ status, signal, stderr });
    });
  });
  const nextLine = async () => {
    while (lines.length <= waitedFor && !hasEnded) await new Promise<void>((resolve) => (wake = resolve));
    return lines[waitedFor++];
  };
  return { process: child, lines, nextLine, ended };
}

/** The time after which a program hangs, on the slowest machine. */
const mostMilliseconds = 30_000;

/**
 * A program that reads tasks, a line of JSON each, and answers each one by another. A crash or a hang fails its
 * task, and the next one starts the program anew.
 */
export class Servant<Task, Answer> {
  readonly #command: readonly [string, ...string[]];
  #program: Program | undefined;

  /** @param command the program's name and arguments */
  constructor(...command: [string, ...string[]]) {
    this.#command = command;
  }

  async ask(task: Task): Promise<Answer> {
    this.#program ??= startProgram(...this.#command);
    const asked = JSON.stringify(task);
    this.#program.process.stdin!.write(`${asked}\n`);
    const { process } = this.#program;
    const timer = setTimeout(() => process.kill('SIGKILL'), mostMilliseconds);
    const answer = await this.#program.nextLine();
    clearTimeout(timer);
    if (answer !== undefined) return JSON.parse(answer) as Answer;
    const ended = await this.#program.ended;
    this.#program = undefined;
    throw new Error(`In ${asked} the program has ended: ${JSON.stringify(ended)}`);
  }

  /** Lets the program end, and checks that it does so in peace. */
  async end(): Promise<void> {
    this.#program?.process.stdin!.end();
    const ended = await this.#program?.ended;
    if (ended !== undefined) expect(ended).toEqual({ status: 0, signal: null, stderr: '' });
  }
}
