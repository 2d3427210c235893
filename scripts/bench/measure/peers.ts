import { Muon, orthogonalizeSync, Parameter, Root } from '../../../lib/index.js';
import { median } from '../../common/numbers.js';
import { paper } from '../../common/paper.js';
import { gaussian } from '../../common/random.js';
import { milliseconds } from '../../common/time.js';
import type { Peer } from './peer.js';

export type Task = 'orthogonalize' | 'root' | 'muon' | 'muon-bfloat16' | 'muon-bfloat16x3';

export interface Request {
  task: Task;
  rows: number;
  columns: number;
  threads: number;
  repeats: number;
}

/** Median milliseconds of this package and of each peer, by the peer's name. */
export interface Figure {
  task: Task;
  shape: string;
  threads: number;
  oursMs: number;
  peers: Record<string, number>;
}

function takes({ introduction }: Peer<Request>, { task, rows, columns, threads }: Request): boolean {
  const { tasks, threads: possible, mostElements = Infinity } = introduction;
  return tasks.includes(task) && (possible?.includes(threads) ?? true) && rows * columns <= mostElements;
}

/** Prepares this package's side of a request: the same task, set up once. */
function prepare({ task, rows, columns, threads }: Request): { run: () => unknown; dispose: () => void } {
  const shape = [rows, columns];
  if (task === 'orthogonalize') {
    const x = gaussian(rows * columns);
    const out = new Float32Array(x.length);
    return {
      run: () =>
        orthogonalizeSync(x, shape, { coefficients: 'muon', threads, device: 'cpu', precision: 'float32', out }),
      dispose: () => undefined,
    };
  }
  const parameter = new Parameter({ name: 'w', shape, data: gaussian(rows * columns), grad: gaussian(rows * columns) });
  const Optimizer = task === 'root' ? Root : Muon;
  const precision = (task.split('-')[1] ?? 'float32') as 'float32' | 'bfloat16' | 'bfloat16x3';
  const options = { ...paper, lr: 1e-3, coefficients: 'muon', threads, precision, device: 'cpu' } as const;
  const optimizer = new Optimizer([parameter], options);
  return { run: () => optimizer.stepSync(), dispose: () => optimizer.dispose() };
}

/** Compares this package with the peers that take the request, in `rounds` turns each. */
export async function compare(request: Request, peers: readonly Peer<Request>[], rounds: number): Promise<Figure> {
  const { run, dispose } = prepare(request);
  run();
  const ours: number[] = [];
  const theirs = new Map(peers.filter((peer) => takes(peer, request)).map((peer) => [peer, [] as number[]]));
  for (let round = 0; round < rounds; round++) {
    for (let i = 0; i < request.repeats; i++) ours.push(milliseconds(run));
    for (const [peer, samples] of theirs) samples.push(...(await peer.measure(request)));
  }
  dispose();
  const { task, rows, columns, threads } = request;
  const medians = [...theirs].map(([peer, samples]) => [peer.introduction.name, median(samples)] as const);
  return { task, shape: `${rows}x${columns}`, threads, oursMs: median(ours), peers: Object.fromEntries(medians) };
}
