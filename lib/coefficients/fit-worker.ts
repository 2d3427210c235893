// The thread of `fit-thread.ts`: answers every shape with its triples.
import { parentPort } from 'node:worker_threads';
import { fitAdaptive } from './adaptive.js';

parentPort?.on('message', ([rows, columns, steps]: readonly [number, number, number]) => {
  parentPort!.postMessage(fitAdaptive(rows, columns, steps));
});
