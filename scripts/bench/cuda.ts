import type { Device, Precision } from '../../lib/index.js';
import { readOptions, runMain } from '../common/command.js';
import { percent } from '../common/numbers.js';
import { markdownHead, markdownRow } from '../common/tables.js';
import { type Case, deviceOf, type Figures, measureCase } from './measure/cuda.js';

const CASES = '768x768x24,768x3072x24,2048x2048x8,2048x8192x8,4096x4096x2,4096x14336x1';

const HELP = `Usage: npm run bench:cuda -- [options]

Measures median times of steps on a CUDA device, each of which is waited for. The steps are those of Muon and of ROOT on
the device's own copies (hostSync: 'manual'), and those of ROOT with gradients and parameters copied in and out. Tasks
take turns. Gradients are random.

  --cases <list>      rows x columns x matrices (default ${CASES})
  --model <layers>    also measure a model of this many layers, each of four 2048 x 2048 and three 2048 x 8192 matrices
                      (default 16, which is 1.07 G parameters; 0 for none)
  --precision <list>  one or more of float16, bfloat16, float32 (default float16)
  --rounds <n>        number of times that each task is measured (default 30)
  --device <name>     cuda or cuda:N (default cuda)
  --help              print this

  effective  TFLOP/s of Muon's whole step by the operations of five plain iterations, 5·(4·m²·n + 2·m³) with m ≤ n
  executed   TFLOP/s of Muon's whole step by the operations that are done, in the form that the addon chose; symmetric
             products count half
  clip       time that the exact quantile and the clip add to Muon's step
  host       time of ROOT with copies over ROOT without`;

runMain(() => {
  const options = readOptions(HELP, ['cases', 'model', 'precision', 'rounds', 'device']);
  if (options === undefined) return;
  const layers = Number(options.model ?? 16);
  const rounds = Number(options.rounds ?? 30);
  if (!Number.isInteger(layers) || layers < 0 || !Number.isInteger(rounds) || rounds < 1) {
    throw new Error('Expected --model and --rounds to be whole numbers');
  }
  const cases = [...(options.cases ?? CASES).split(',').map(parseCase), ...(layers > 0 ? [model(layers)] : [])];
  const device = (options.device ?? 'cuda') as Device;
  const date = new Date().toISOString().slice(0, 10);
  console.log(`${deviceOf(device).description}, Node ${process.version}, ${date}, median of ${rounds}\n`);
  const head = ['matrices', 'precision', 'Muon, ms', 'ROOT, ms', 'clip', 'effective', 'executed', 'host'];
  console.log(markdownHead([...head, 'memory, GiB']));
  for (const precision of (options.precision ?? 'float16').split(',') as Precision[]) {
    for (const one of cases) {
      const cells = cellsOf(measureCase(one, precision, device, rounds));
      console.log(markdownRow([one.name, precision, ...cells]));
    }
  }
});

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

function cellsOf({ muonMs, rootMs, copyingMs, plainFlops, executedFlops, memoryBytes }: Figures): string[] {
  const tflops = (count: number) => (count / muonMs / 1e9).toFixed(0);
  return [
    ...[muonMs.toFixed(3), rootMs.toFixed(3), percent(rootMs / muonMs - 1), tflops(plainFlops), tflops(executedFlops)],
    ...[(copyingMs / rootMs).toFixed(1), (memoryBytes / 2 ** 30).toFixed(2)],
  ];
}
