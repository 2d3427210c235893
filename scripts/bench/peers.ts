import { existsSync } from 'node:fs';
import path from 'node:path';
import { devices } from '../../lib/index.js';
import {
  parsePositive,
  parseShapes,
  parseThreads,
  readOptions,
  runMain,
  SHAPES,
  writeFigures,
} from '../common/command.js';
import { formatRow } from '../common/tables.js';
import { Peer } from './measure/peer.js';
import { compare, type Figure, type Request, type Task } from './measure/peers.js';

const HELP = `Usage: npm run bench:peers -- [options]

Compares this package with other libraries on the same work, in turns within one run, and prints how many times faster
this package is. The others are PyTorch (the float32 addmm form, a ROOT step written with it, and torch.optim.Muon
where it has one), optax's Muon, and plain JavaScript with ml-matrix. What is not installed is left out. All do five
iterations with Muon's coefficients. ROOT's step is that of its paper. Products of this package are float32, or what the
name of a task says: muon-bfloat16 and muon-bfloat16x3. torch.optim.Muon computes in bfloat16 in every case.

  --shapes <list>   rows x columns (default ${SHAPES})
  --threads <list>  numbers of CPU threads (default 1 and the physical cores)
  --rounds <n>      number of turns of each; the medians are compared (default 5)
  --python <path>   the interpreter that has the Python libraries (default python3)
  --json <file>     write the figures to a file as well
  --help            print this`;

runMain(async () => {
  const options = readOptions(HELP, ['shapes', 'threads', 'rounds', 'python', 'json']);
  if (options === undefined) return;
  const shapes = parseShapes(options.shapes ?? SHAPES);
  const threads = parseThreads(options.threads);
  const rounds = parsePositive(options.rounds ?? '5', '--rounds');
  const peers = await startPeers(options.python ?? 'python3');
  try {
    const figures: Figure[] = [];
    const { cpu } = devices();
    const processor = `${cpu.description}, ${cpu.instructionSet}`;
    console.log(`\n${processor}, Node ${process.version}; milliseconds here, and times faster than each\n`);
    const names = peers.map((peer) => peer.introduction.name);
    const widths = [14, 10, 7, 8, ...names.map((name) => name.length)];
    const print = (cells: string[]) => console.log(formatRow(cells, widths, (column) => column === 0));
    print(['task', 'shape', 'threads', 'here', ...names]);
    const tasks: Task[] = ['orthogonalize', 'root', 'muon'];
    for (const one of cpu.precisions) if (one !== 'float32') tasks.push(`muon-${one}`);
    for (const task of tasks) {
      for (const [rows, columns] of shapes) {
        for (const count of threads) {
          const repeats = Math.max(1, Math.min(20, Math.round(2e9 / (rows * columns * Math.min(rows, columns)))));
          const figure = await compare({ task, rows, columns, threads: count, repeats }, peers, rounds);
          figures.push(figure);
          const ratios = names
            .map((name) => figure.peers[name])
            .map((ms) => (ms === undefined ? '' : (ms / figure.oursMs).toFixed(2)));
          print([task, figure.shape, String(count), figure.oursMs.toFixed(2), ...ratios]);
        }
      }
    }
    writeFigures(options.json, { cpu, figures });
  } finally {
    for (const peer of peers) peer.stop();
  }
});

/** Starts the peers. Says which are left out, and why. */
async function startPeers(python: string): Promise<Peer<Request>[]> {
  if (python.includes('/') && !existsSync(python)) throw new Error(`There is no ${python}`);
  const file = (name: string) => path.join(__dirname, '..', 'peers', name);
  const programs = [
    ['PyTorch', python, [file('pytorch.py')]],
    ['optax', python, [file('optax_muon.py')]],
    ['ml-matrix', process.execPath, [...process.execArgv, file('ml-matrix.ts')]],
  ] as const;
  const peers: Peer<Request>[] = [];
  for (const [label, command, args] of programs) {
    const peer = await Peer.start<Request>(command, [...args]);
    if (typeof peer === 'string') console.log(`${label}: left out (${peer})`);
    else peers.push(peer);
  }
  return peers;
}
