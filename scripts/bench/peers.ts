import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { parseArgs } from 'node:util';
import { devices, Muon, orthogonalizeSync, Parameter, Root } from '../../lib/index.js';

const SHAPES = '128x128,128x512,256x1024,512x512,768x768,768x3072,1024x1024,1024x4096';

const HELP = `Usage: npm run bench:peers -- [options]

The same work here and in other libraries, in turns within one run, and how many times faster it is here: PyTorch (the float32 addmm form, a
ROOT step written with it, and torch.optim.Muon where it has one), optax's Muon, and plain JavaScript with ml-matrix. What is not installed is
left out. Coefficients are Muon's, five iterations. Products here are float32, in the task muon-bfloat16 bfloat16; torch.optim.Muon computes
in bfloat16 in either.

  --shapes <list>   rows x columns (default ${SHAPES})
  --threads <list>  CPU threads (default 1 and the physical cores)
  --rounds <n>      turns that each takes; the medians are compared (default 5)
  --python <path>   the interpreter that has the Python libraries (default python3)
  --json <file>     write the figures to a file as well
  --help            print this`;

type Task = 'orthogonalize' | 'root' | 'muon' | 'muon-bfloat16';

interface Request {
  task: Task;
  rows: number;
  columns: number;
  threads: number;
  repeats: number;
}

/** What a peer says of itself; `threads`: those it can be told to use, all if absent; `mostElements`: beyond that it takes minutes. */
interface Introduction {
  name: string;
  tasks: Task[];
  threads?: number[];
  mostElements?: number;
}

interface Figure {
  task: Task;
  shape: string;
  threads: number;
  oursMs: number;
  peers: Record<string, number>;
}

/**
 * Large blocks that a peer frees stay its own. glibc would give them back to the system, and to fetch the pages of the next result anew can take
 * longer than its product, on a virtual machine at least.
 */
const KEEP_MEMORY = { MALLOC_MMAP_THRESHOLD_: String(2 ** 25), MALLOC_TRIM_THRESHOLD_: String(2 ** 32) };

/** A process that answers a request a line, with the milliseconds of each repeat. */
class Peer {
  private constructor(
    readonly introduction: Introduction,
    private readonly child: ChildProcess,
    private readonly lines: AsyncIterator<string>,
  ) {}

  /** Undefined, having said why, where it is not installed. */
  static async start(label: string, command: string, args: string[]): Promise<Peer | undefined> {
    const child = spawn(command, args, { stdio: ['pipe', 'pipe', 'pipe'], env: { ...process.env, ...KEEP_MEMORY } });
    let complaint = '';
    child.on('error', (error) => (complaint = error.message));
    child.stderr.on('data', (chunk: Buffer) => (complaint += chunk.toString()));
    const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
    const first = await lines.next();
    if (first.done !== true) return new Peer(JSON.parse(first.value) as Introduction, child, lines);
    console.log(`${label}: left out (${complaint.trim().split('\n').at(-1) ?? 'it ended at once'})`);
    return undefined;
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

/** Our side of a request: the same tasks, prepared once. */
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

async function compare(request: Request, peers: readonly Peer[], rounds: number): Promise<Figure> {
  const { run, dispose } = prepare(request);
  run();
  const ours: number[] = [];
  const theirs = new Map(peers.filter((peer) => peer.takes(request)).map((peer) => [peer, [] as number[]]));
  for (let round = 0; round < rounds; round++) {
    for (let i = 0; i < request.repeats; i++) {
      const start = performance.now();
      run();
      ours.push(performance.now() - start);
    }
    for (const [peer, samples] of theirs) samples.push(...(await peer.measure(request)));
  }
  dispose();
  const { task, rows, columns, threads } = request;
  const medians = [...theirs].map(([peer, samples]) => [peer.introduction.name, median(samples)] as const);
  return { task, shape: `${rows}x${columns}`, threads, oursMs: median(ours), peers: Object.fromEntries(medians) };
}

function median(samples: readonly number[]): number {
  return [...samples].sort((a, b) => a - b)[samples.length >> 1]!;
}

function gaussian(size: number): Float32Array {
  return Float32Array.from(
    { length: size },
    () => Math.sqrt(-2 * Math.log(1 - Math.random())) * Math.cos(2 * Math.PI * Math.random()),
  );
}

async function main(): Promise<void> {
  const text = { type: 'string' } as const;
  const { values } = parseArgs({
    options: { shapes: text, threads: text, rounds: text, python: text, json: text, help: { type: 'boolean' } },
  });
  if (values.help) {
    console.log(HELP);
    return;
  }
  const shapes = (values.shapes ?? SHAPES).split(',').map((one) => {
    const [rows = NaN, columns = NaN, ...rest] = one.split('x').map(Number);
    if (!(rows >= 1 && columns >= 1) || rest.length > 0)
      throw new Error(`Expected a shape such as 256x1024, got "${one}"`);
    return [rows, columns] as const;
  });
  const threads = values.threads?.split(',').map(Number) ?? [...new Set([1, devices().cpu.physicalCores])];
  const rounds = Number(values.rounds ?? 5);
  if (![...threads, rounds].every((one) => Number.isInteger(one) && one > 0))
    throw new Error('Expected --threads and --rounds to be positive whole numbers');

  const file = (name: string) => path.join(__dirname, '..', 'peers', name);
  const python = values.python ?? 'python3';
  if (python.includes('/') && !existsSync(python)) throw new Error(`There is no ${python}`);
  const started = [
    await Peer.start('PyTorch', python, [file('pytorch.py')]),
    await Peer.start('optax', python, [file('optax_muon.py')]),
    await Peer.start('ml-matrix', process.execPath, [...process.execArgv, file('ml-matrix.ts')]),
  ];
  const peers = started.filter((peer) => peer !== undefined);
  const { cpu } = devices();
  console.log(
    `\n${cpu.description}, ${cpu.instructionSet}, Node ${process.version}; milliseconds here, and times faster than each\n`,
  );

  const names = peers.map((peer) => peer.introduction.name);
  console.log(['task'.padEnd(14), 'shape'.padStart(10), 'threads', '    here', ...names].join('  '));
  const figures: Figure[] = [];
  const tasks: Task[] = ['orthogonalize', 'root', 'muon'];
  if (cpu.precisions.includes('bfloat16')) tasks.push('muon-bfloat16');
  for (const task of tasks) {
    for (const [rows, columns] of shapes) {
      for (const count of threads) {
        const repeats = Math.max(1, Math.min(20, Math.round(2e9 / (rows * columns * Math.min(rows, columns)))));
        const figure = await compare({ task, rows, columns, threads: count, repeats }, peers, rounds);
        figures.push(figure);
        const cells = names.map((name) => {
          const theirs = figure.peers[name];
          return (theirs === undefined ? '' : (theirs / figure.oursMs).toFixed(2)).padStart(name.length);
        });
        console.log(
          [
            task.padEnd(14),
            figure.shape.padStart(10),
            String(count).padStart(7),
            figure.oursMs.toFixed(2).padStart(8),
            ...cells,
          ].join('  '),
        );
      }
    }
  }
  for (const peer of peers) peer.stop();
  if (values.json !== undefined)
    writeFileSync(values.json, `${JSON.stringify({ date: new Date().toISOString(), cpu, figures }, null, 2)}\n`);
}

main().catch((error: unknown) => {
  console.error(error instanceof Error ? error.message : error);
  process.exit(1);
});
