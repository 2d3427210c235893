import { type ChildProcess, spawn } from 'node:child_process';
import { appendFileSync, existsSync, mkdirSync, readFileSync, truncateSync } from 'node:fs';
import path from 'node:path';
import { keyOf, type Outcome, type Result, type Spec } from './plan.js';

/**
 * Reads the results of a file, one JSON object a line. A last line without an end was being written when the run was
 * stopped. It does not count.
 */
export function readResults(file: string): Result[] {
  if (!existsSync(file)) return [];
  const lines = readFileSync(file, 'utf8').split('\n').slice(0, -1);
  return lines.map((line) => JSON.parse(line) as Result);
}

/** Trains in a process of its own. */
export type Train = (spec: Spec, children: Set<ChildProcess>) => Promise<Outcome>;

/**
 * Trains what a file of results lacks, at most `jobs` at a time, and adds a line to the file for each training that
 * ends. A training that the file has is not repeated.
 */
export class Runner {
  readonly #results: Map<string, Promise<Result>>;
  readonly #file: string;
  readonly #train: Train;
  readonly #log: (line: string) => void;
  readonly #children = new Set<ChildProcess>();
  readonly #waiting: (() => void)[] = [];
  #free: number;
  #planned = 0;
  #done = 0;

  constructor(file: string, jobs: number, train: Train = trainInChild, log: (line: string) => void = console.error) {
    this.#file = file;
    this.#free = jobs;
    this.#train = train;
    this.#log = log;
    this.#results = new Map(readResults(file).map((result) => [keyOf(result), Promise.resolve(result)]));
    mkdirSync(path.dirname(file), { recursive: true });
    if (existsSync(file)) {
      const text = readFileSync(file);
      truncateSync(file, text.lastIndexOf(10) + 1);
    }
  }

  run(spec: Spec): Promise<Result> {
    const key = keyOf(spec);
    const known = this.#results.get(key);
    if (known !== undefined) return known;
    const result = this.#start(spec);
    this.#results.set(key, result);
    return result;
  }

  /** Runs all specs. Where one fails, those that run are stopped and the others do not begin. */
  async runAll(specs: readonly Spec[]): Promise<Result[]> {
    return Promise.all(specs.map((spec) => this.run(spec)));
  }

  /** Ends the processes that train. */
  stop(): void {
    this.#waiting.length = 0;
    for (const child of this.#children) child.kill();
  }

  async #start(spec: Spec): Promise<Result> {
    this.#planned++;
    if (this.#free > 0) this.#free--;
    else await new Promise<void>((resolve) => this.#waiting.push(resolve));
    const start = performance.now();
    try {
      const outcome = await this.#train(spec, this.#children);
      const seconds = Math.round((performance.now() - start) / 100) / 10;
      const result = { ...spec, ...outcome, seconds, date: new Date().toISOString() };
      appendFileSync(this.#file, `${JSON.stringify(result)}\n`);
      const loss = outcome.loss?.toFixed(4) ?? 'not finite';
      this.#log(`${++this.#done} of ${this.#planned}: ${keyOf(spec)}: ${loss} (${seconds} s)`);
      return result;
    } catch (error) {
      this.stop();
      throw error;
    } finally {
      const next = this.#waiting.shift();
      if (next === undefined) this.#free++;
      else next();
    }
  }
}

/** Trains in a child process of the same script, which prints the outcome as JSON. */
async function trainInChild(spec: Spec, children: Set<ChildProcess>): Promise<Outcome> {
  const script = path.join(__dirname, '..', 'experiments.ts');
  const child = spawn(process.execPath, ['--import', 'tsx', script, 'one', '--spec', JSON.stringify(spec)], {
    cwd: path.join(__dirname, '..', '..'),
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  children.add(child);
  let text = '';
  child.stdout.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
  try {
    const status = await new Promise<number | string | null>((resolve, reject) => {
      child.on('error', reject).on('close', (code, signal) => {
        resolve(signal ?? code);
      });
    });
    if (status !== 0) throw new Error(`The training ${keyOf(spec)} ended with ${status}`);
    return JSON.parse(text) as Outcome;
  } finally {
    children.delete(child);
  }
}
