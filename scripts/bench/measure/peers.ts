import { type ChildProcess, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { Muon, orthogonalizeSync, Parameter, Root } from '../../../lib/index.js';
import { median } from '../../common/numbers.js';
import { gaussian } from '../../common/random.js';
import { milliseconds } from '../../common/time.js';

export type Task = 'orthogonalize' | 'root' | 'muon' | 'muon-bfloat16';

export interface Request {
  task: Task;
  rows: number;
  columns: number;
  threads: number;
  repeats: number;
}

/**
 * A peer's introduction of itself. `threads` are the numbers of threads that it can be told to use, all if absent. On
 * more than `mostElements` elements it takes minutes.
 */
interface Introduction {
  name: string;
  tasks: Task[];
  threads?: number[];
  mostElements?: number;
}

/** Median milliseconds of this package and of each peer, by the peer's name. */
export interface Figure {
  task: Task;
  shape: string;
  threads: number;
  oursMs: number;
  peers: Record<string, number>;
}

/**
 * Makes a peer keep the large blocks that it frees. glibc would give them back to the system. To fetch the pages of the
 * next result anew can take longer than its product, on a virtual machine at least.
 */
const KEEP_MEMORY = { MALLOC_MMAP_THRESHOLD_: String(2 ** 25), MALLOC_TRIM_THRESHOLD_: String(2 ** 32) };

/** A process that answers each line of request with the milliseconds of each repeat. */
export class Peer {
  private constructor(
    readonly introduction: Introduction,
    private readonly child: ChildProcess,
    private readonly lines: AsyncIterator<string>,
  ) {}

  /** Starts a peer, or returns the reason why there is none. */
  static async start(command: string, args: string[]): Promise<Peer | string> {
    const child = spawn(command, args, { stdio: ['pipe', 'pipe', 'pipe'], env: { ...process.env, ...KEEP_MEMORY } });
    let complaint = '';
    child.on('error', (error) => (complaint = error.message));
    child.stderr.on('data', (chunk: Buffer) => (complaint += chunk.toString()));
    const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
    const first = await lines.next();
    if (first.done !== true) return new Peer(JSON.parse(first.value) as Introduction, child, lines);
    return complaint.trim().split('\n').at(-1) ?? 'it ended at once';
  }

  takes({ task, rows, columns, threads }: Request): boolean {
    const { tasks, threads: possible, mostElements = Infinity } = this.introduction;
    return tasks.includes(task) && (possible?.includes(threads) ?? true) && rows * columns <= mostElements;
  }

  async measure(request: Request): Promise<number[]> {
    this.child.stdin!.write(`${JSON.stringify(request)}\n`);
    const line = await this.lines.next();
    if (line.done === true) throw new Error(`${this.introduction.name} ended during ${JSON.stringify(request)}`);
    return JSON.parse(line.value) as number[];
  }

  stop(): void {
    this.child.stdin!.end();
  }
}

/** Prepares this package's side of a request: the same task, set up once. */
function prepare({ task, rows, columns, threads }: Request): { run: () => unknown; dispose: () => void } {
  const shape = [rows, columns];
  if (task === 'orthogonalize') {
    const x = gaussian(rows * columns);
    const out = new Float32Array(x.length);
    return {
      run: () => orthogonalizeSync(x, shape, { coefficients: 'muon', threads, device: 'cpu', out }),
      dispose: () => undefined,
    };
  }
  const parameter = new Parameter({ name: 'w', shape, data: gaussian(rows * columns), grad: gaussian(rows * columns) });
  const Optimizer = task === 'root' ? Root : Muon;
  const precision = task === 'muon-bfloat16' ? 'bfloat16' : 'float32';
  const optimizer = new Optimizer([parameter], { lr: 1e-3, coefficients: 'muon', threads, precision, device: 'cpu' });
  return { run: () => optimizer.stepSync(), dispose: () => optimizer.dispose() };
}

/** Compares this package with the peers that take the request, in `rounds` turns each. */
export async function compare(request: Request, peers: readonly Peer[], rounds: number): Promise<Figure> {
  const { run, dispose } = prepare(request);
  run();
  const ours: number[] = [];
  const theirs = new Map(peers.filter((peer) => peer.takes(request)).map((peer) => [peer, [] as number[]]));
  for (let round = 0; round < rounds; round++) {
    for (let i = 0; i < request.repeats; i++) ours.push(milliseconds(run));
    for (const [peer, samples] of theirs) samples.push(...(await peer.measure(request)));
  }
  dispose();
  const { task, rows, columns, threads } = request;
  const medians = [...theirs].map(([peer, samples]) => [peer.introduction.name, median(samples)] as const);
  return { task, shape: `${rows}x${columns}`, threads, oursMs: median(ours), peers: Object.fromEntries(medians) };
}
