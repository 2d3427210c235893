import path from 'node:path';
import { Worker } from 'node:worker_threads';
import { isFitted, remember, type Task } from './adaptive.js';
import type { Triple } from './triple.js';

interface Waiting {
  readonly task: Task;
  readonly ended: Promise<void>;
  readonly end: () => void;
}

/** The fits that were asked for and have not ended, by their keys and in the order in which the thread takes them. */
const queue = new Map<string, Waiting>();
let thread: Worker | undefined;
/** Whether a thread has failed. Where threads are forbidden, or a clone runs as TypeScript, further ones would too. */
let hasFailed = false;

/**
 * Fits the triples of `adaptive` on a thread of its own, so that `adaptiveTriples` finds them in memory.
 * @returns a promise for the end of the fits, or undefined where nothing is left to do. It never rejects: what the
 * thread could not fit, `adaptiveTriples` fits.
 */
export function fitOnThread(tasks: readonly Task[]): Promise<void> | undefined {
  const missing = tasks.filter((task) => !isFitted(task));
  if (missing.length === 0 || hasFailed) return undefined;
  return Promise.all(missing.map(enqueue)).then(() => undefined);
}

function enqueue(task: Task): Promise<void> {
  const key = task.join();
  let waiting = queue.get(key);
  if (waiting === undefined) {
    let end!: () => void;
    const ended = new Promise<void>((resolve) => {
      end = resolve;
    });
    waiting = { task, ended, end };
    queue.set(key, waiting);
    thread ??= start();
    thread?.postMessage(task);
  }
  return waiting.ended;
}

function start(): Worker | undefined {
  try {
    const worker = new Worker(path.join(__dirname, 'fit-worker.js'));
    worker.on('message', (triples: readonly Triple[]) => {
      const [first] = queue.values();
      if (first === undefined) return;
      remember(first.task, triples);
      queue.delete(first.task.join());
      first.end();
      if (queue.size > 0) return;
      thread = undefined;
      void worker.terminate();
    });
    worker.on('error', fail);
    worker.on('exit', () => {
      if (thread === worker) fail();
    });
    return worker;
  } catch {
    fail();
    return undefined;
  }
}

function fail(): void {
  hasFailed = true;
  thread = undefined;
  for (const { end } of queue.values()) end();
  queue.clear();
}
