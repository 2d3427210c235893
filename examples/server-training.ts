// A training of `server.ts`, in a process of its own: a model in JavaScript would hold up the server's requests.
import { Root, train } from 'root-optimizer';
import { batchesFrom, loadDigits } from './digits.js';
import { Mlp } from './mlp.js';

/** What the server sends to begin with. */
export interface Order {
  readonly steps: number;
  readonly lr: number;
  /** The checkpoint. Training goes on from it, if it is there. */
  readonly path: string;
}

/** What the process sends back. */
export type News =
  | { readonly kind: 'step'; readonly step: number; readonly loss: number }
  | { readonly kind: 'end'; readonly ended: string; readonly accuracy: number }
  | { readonly kind: 'error'; readonly message: string };

const controller = new AbortController();
const tell = (news: News) => new Promise<void>((resolve) => process.send!(news, () => resolve()));

async function run({ steps, lr, path }: Order): Promise<void> {
  const { training, test } = loadDigits();
  const model = new Mlp();
  const optimizer = new Root([{ params: [model.w1] }, { params: [model.b1, model.w2, model.b2], algorithm: 'adamw' }], {
    lr,
    threads: 1,
  });
  const { ended } = await train({
    model,
    optimizer,
    steps,
    batches: (firstStep) => batchesFrom(training, firstStep),
    schedule: { kind: 'cosine', warmup: Math.min(10, steps) },
    checkpoint: { path, every: 20 },
    resume: true,
    signal: controller.signal,
    onStep: ({ step, loss }) => tell({ kind: 'step', step, loss }),
  });
  await tell({ kind: 'end', ended, accuracy: model.accuracy(test) });
}

process.once('message', (order: Order) => {
  // The second message, of any kind, cancels; so does the end of the server.
  process.once('message', () => controller.abort());
  process.once('disconnect', () => controller.abort());
  run(order)
    .catch((error: unknown) => tell({ kind: 'error', message: error instanceof Error ? error.message : String(error) }))
    .finally(() => process.exit());
});
