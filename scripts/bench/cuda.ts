import path from 'node:path';
import type { Device, Precision } from '../../lib/index.js';
import { parseNames, parsePositive, readOptions, runMain } from '../common/command.js';
import { median } from '../common/numbers.js';
import { markdownHead, markdownRow } from '../common/tables.js';
import { type Case, deviceOf, type Figures, measureCase, type PeerRequest, peerTasks } from './measure/cuda.js';
import { Peer } from './measure/peer.js';

const CASES = '768x768x24,768x3072x24,2048x2048x8,2048x8192x8,4096x4096x2,4096x14336x1';

const HELP = `Usage: npm run bench:cuda -- [options]

Measures median times of steps on a CUDA device, each of which is waited for. The steps are those of Muon, of the
paper's ROOT and of ROOT as it comes, on the device's own copies (hostSync: 'manual'), and those of ROOT with gradients
and parameters copied in and out. Tasks take turns, also with those of PyTorch if it is there: a compiled step of Muon
on the same batch, torch.optim.Muon, and a step of ROOT with two selections a matrix. Gradients are random.

  --cases <list>      rows x columns x matrices (default ${CASES})
  --model <layers>    also measure a model of this many layers, each of four 2048 x 2048 and three 2048 x 8192 matrices
                      (default 16, which is 1.07 G parameters; 0 for none)
  --precision <list>  one or more of float16, bfloat16, float32 (default float16)
  --compensated <list>  one or both of on, off (default on)
  --rounds <n>        number of times that each task is measured (default 30)
  --device <name>     cuda or cuda:N (default cuda)
  --python <path>     the interpreter that has PyTorch (default python3)
  --help              print this

  effective  TFLOP/s of Muon's whole step by the operations of five plain iterations, 5·(4·m²·n + 2·m³) with m ≤ n
  executed   TFLOP/s of Muon's whole step by the operations that are done, in the form that the addon chose; symmetric
             products count half
  host       time of ROOT with copies over ROOT without
  ×          the time of PyTorch over that of this package: compiled Muon over Muon, ROOT over the paper's ROOT`;

const switches = ['on', 'off'] as const;

runMain(async () => {
  const options = readOptions(HELP, ['cases', 'model', 'precision', 'compensated', 'rounds', 'device', 'python']);
  if (options === undefined) return;
  const layers = Number(options.model ?? 16);
  if (!Number.isInteger(layers) || layers < 0) throw new Error('Expected --model to be a whole number');
  const rounds = parsePositive(options.rounds ?? '30', '--rounds');
  const cases = [...(options.cases ?? CASES).split(',').map(parseCase), ...(layers > 0 ? [model(layers)] : [])];
  const device = (options.device ?? 'cuda') as Device;
  const date = new Date().toISOString().slice(0, 10);
  console.log(`${deviceOf(device).description}, Node ${process.version}, ${date}, median of ${rounds}`);
  const peer = await startPeer(options.python ?? 'python3');
  try {
    const head = ['matrices', 'precision', 'compensated', 'Muon, ms', 'ROOT, ms', 'default, ms', 'effective'];
    const ofPeer = [...peerTasks.map((task) => `PyTorch ${task}, ms`), '× Muon', '× ROOT'];
    console.log(`\n${markdownHead([...head, 'executed', 'host', 'memory, GiB', ...ofPeer])}`);
    for (const precision of (options.precision ?? 'float16').split(',') as Precision[]) {
      for (const compensated of parseNames(options.compensated ?? 'on', switches, '--compensated')) {
        for (const one of cases) {
          const settings = { precision, compensated: compensated === 'on', device, rounds };
          const cells = cellsOf(await measureCase(one, settings, peer));
          console.log(markdownRow([one.name, precision, compensated, ...cells]));
        }
      }
    }
  } finally {
    peer?.stop();
  }
});

/** Starts PyTorch and prints the ceilings that it finds: a copy of 1 GiB, and a product of 8192 × 8192 matrices. */
async function startPeer(python: string): Promise<Peer<PeerRequest> | undefined> {
  const peer = await Peer.start<PeerRequest>(python, [path.join(__dirname, '..', 'peers', 'pytorch_cuda.py')]);
  if (typeof peer === 'string') {
    console.log(`PyTorch: left out (${peer})`);
    return undefined;
  }
  const copy = median(await peer.measure({ task: 'copy', count: 1, rows: 16384, columns: 16384, repeats: 20 }));
  const product = median(await peer.measure({ task: 'product', count: 1, rows: 8192, columns: 8192, repeats: 20 }));
  const [bandwidth, rate] = [((2 * 2 ** 30) / copy / 1e9).toFixed(2), ((2 * 8192 ** 3) / product / 1e9).toFixed(0)];
  console.log(`${peer.introduction.name}: copies at ${bandwidth} TB/s, a bfloat16 product at ${rate} TFLOP/s`);
  return peer;
}

function parseCase(text: string): Case {
  const [, rows, columns, count] = /^([1-9]\d*)x([1-9]\d*)x([1-9]\d*)$/.exec(text) ?? [];
  if (count === undefined) throw new Error(`Expected cases such as 768x3072x24, got "${text}"`);
  const shape = [Number(rows), Number(columns)] as const;
  return { name: `${count} of ${rows}×${columns}`, shapes: Array.from({ length: Number(count) }, () => shape) };
}

function model(layers: number): Case {
  const square = [2048, 2048] as const;
  const layer = [square, square, square, square, [8192, 2048], [8192, 2048], [2048, 8192]] as const;
  return { name: `${layers} layers of 2048/8192`, shapes: Array.from({ length: layers }, () => layer).flat() };
}

function cellsOf(figures: Figures): string[] {
  const { muonMs, rootMs, defaultMs, copyingMs, peerMs, memoryBytes } = figures;
  const tflops = (count: number) => (count / muonMs / 1e9).toFixed(0);
  const ratio = (theirs: number | undefined, ours: number) => (theirs === undefined ? '' : (theirs / ours).toFixed(2));
  return [
    ...[muonMs, rootMs, defaultMs].map((ms) => ms.toFixed(3)),
    ...[tflops(figures.plainFlops), tflops(figures.executedFlops)],
    ...[(copyingMs / defaultMs).toFixed(1), (memoryBytes / 2 ** 30).toFixed(2)],
    ...peerTasks.map((task) => peerMs[task]?.toFixed(3) ?? ''),
    ...[ratio(peerMs['muon'], muonMs), ratio(peerMs['root'], rootMs)],
  ];
}
