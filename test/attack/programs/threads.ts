// Terminates worker threads in mid-call. Each line of its input is a task, after which it prints its bytes of resident
// memory.
import { createInterface } from 'node:readline';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { wait } from '../support.js';
import { type Call, callForEver } from './calls.js';

export interface Task {
  readonly call: Call;
  readonly file: string;
  /** Milliseconds from the thread's first call to its termination. */
  readonly after: number;
}

async function terminate(task: Task): Promise<void> {
  const worker = new Worker(__filename, { workerData: task, execArgv: ['--require', 'tsx/cjs'] });
  await new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject));
  await wait(task.after);
  await worker.terminate();
}

async function main(): Promise<void> {
  for await (const line of createInterface({ input: process.stdin })) {
    await terminate(JSON.parse(line) as Task);
    gc!();
    console.log(process.memoryUsage.rss());
  }
}

if (isMainThread) void main();
else {
  const { call, file } = workerData as Task;
  void callForEver(call, file, () => parentPort!.postMessage('busy'));
}
