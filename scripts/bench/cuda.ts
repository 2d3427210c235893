import { parseArgs } from 'node:util';
import { addon } from '../../lib/binding.js';
import {
  type Device,
  devices,
  Muon,
  newtonSchulzCoefficients,
  Parameter,
  type Precision,
  Root,
} from '../../lib/index.js';
import { deviceMemory } from '../common/device-memory.js';

const CASES = '768x768x24,768x3072x24,2048x2048x8,2048x8192x8,4096x4096x2,4096x14336x1';

const HELP = `Usage: npm run bench:cuda -- [options]

Median times of steps on a CUDA device, waited for one by one: of Muon and of ROOT on what the device holds (hostSync: 'manual'), and of
ROOT with gradients and parameters copied in and out. Tasks take turns. Gradients are random.

  --cases <list>      rows x columns x matrices (default ${CASES})
  --model <layers>    also a model of so many layers of four 2048 x 2048 and three 2048 x 8192 matrices (default 16, 1.07 G parameters; 0: none)
  --precision <list>  of float16, bfloat16, float32 (default float16)
  --rounds <n>        times that each task is measured (default 30)
  --device <name>     default cuda
  --help              print this

  effective  TFLOP/s counting what five plain iterations take, 5·(4·m²·n + 2·m³) with m ≤ n
  executed   TFLOP/s counting what is done: the form that the addon chose, symmetric products by halves; both of Muon's whole step
  clip       what the exact quantile and the clip add to Muon's step
  host       ROOT with copies, over ROOT without`;

interface Case {
  name: string;
  shapes: [number, number][];
}

function parseCase(text: string): Case {
  const [, rows, columns, count] = /^([1-9]\d*)x([1-9]\d*)x([1-9]\d*)$/.exec(text) ?? [];
  if (count === undefined) throw new Error(`Expected cases such as 768x3072x24, got "${text}"`);
  return {
    name: `${count} of ${rows}×${columns}`,
    shapes: Array.from({ length: Number(count) }, () => [Number(rows), Number(columns)]),
  };
}

function model(layers: number): Case {
  const layer: [number, number][] = [
    [2048, 2048],
    [2048, 2048],
    [2048, 2048],
    [2048, 2048],
    [8192, 2048],
    [8192, 2048],
    [2048, 8192],
  ];
  return { name: `${layers} layers of 2048/8192`, shapes: Array.from({ length: layers }, () => layer).flat() };
}

function flops(shapes: readonly [number, number][], precision: Precision): { plain: number; executed: number } {
  let [plain, executed] = [0, 0];
  for (const [rows, columns] of shapes) {
    const [m, n] = [Math.min(rows, columns), Math.max(rows, columns)];
    plain += 5 * (4 * m * m * n + 2 * m ** 3);
    executed += addon().newtonSchulzPlan(
      'cuda:0',
      precision,
      rows,
      columns,
      Float64Array.from(newtonSchulzCoefficients([rows, columns]).flat()),
    ).flops;
  }
  return { plain, executed };
}

/** Standard normal values, enough for the largest matrix. */
function gaussian(size: number): Float32Array {
  return Float32Array.from(
    { length: size },
    () => Math.sqrt(-2 * Math.log(1 - Math.random())) * Math.cos(2 * Math.PI * Math.random()),
  );
}

function milliseconds(task: () => unknown): number {
  const start = process.hrtime.bigint();
  task();
  return Number(process.hrtime.bigint() - start) / 1e6;
}

/** Median of each task; they take turns. */
function medians(rounds: number, tasks: readonly (() => unknown)[]): number[] {
  for (const task of tasks) for (let i = 0; i < 3; i++) task();
  const samples = tasks.map((): number[] => []);
  for (let round = 0; round < rounds; round++) tasks.forEach((task, i) => samples[i]!.push(milliseconds(task)));
  return samples.map((list) => list.sort((a, b) => a - b)[list.length >> 1]!);
}

function deviceOf(device: Device) {
  const { cuda } = devices();
  const found = cuda.devices.find((one) => device === 'cuda' || one.name === device);
  if (found === undefined) throw new Error(`There is no device ${device}: ${cuda.reason ?? 'the first is cuda:0'}`);
  return found;
}

function measure({ name, shapes }: Case, precision: Precision, device: Device, rounds: number): string {
  const { description } = deviceOf(device);
  const memory = deviceMemory(description.startsWith('Emulated'), Number(/\d+$/.exec(device)?.[0] ?? 0));
  const random = gaussian(Math.max(...shapes.map(([rows, columns]) => rows * columns)));
  const held = [Muon, Root].map((Kind) => {
    const params = shapes.map((shape, i) => new Parameter({ name: `w${i}`, shape }));
    const optimizer = new Kind(params, { device, precision, hostSync: 'manual', lr: 1e-3 });
    for (const one of params) memory.write(optimizer.deviceMemory(one).grad, random.subarray(0, one.size));
    return optimizer;
  });
  const [muon, root] = medians(
    rounds,
    held.map((optimizer) => () => optimizer.stepSync()),
  );
  const { memoryBytes } = held[1]!;
  held.forEach((optimizer) => {
    optimizer.dispose();
  });

  const copied = new Root(
    shapes.map((shape, i) => new Parameter({ name: `w${i}`, shape, grad: random.subarray(0, shape[0] * shape[1]) })),
    { device, precision, lr: 1e-3 },
  );
  const [withCopies] = medians(Math.max(3, Math.round(rounds / 3)), [() => copied.stepSync()]);
  copied.dispose();

  const { plain, executed } = flops(shapes, precision);
  const tflops = (count: number) => (count / muon! / 1e9).toFixed(0);
  const cells = [
    name,
    precision,
    muon!.toFixed(3),
    root!.toFixed(3),
    `${(100 * (root! / muon! - 1)).toFixed(1)} %`,
    tflops(plain),
    tflops(executed),
    (withCopies! / root!).toFixed(1),
    (memoryBytes / 2 ** 30).toFixed(2),
  ];
  return `| ${cells.join(' | ')} |`;
}

function main(): void {
  const text = { type: 'string' } as const;
  const { values } = parseArgs({
    options: { cases: text, model: text, precision: text, rounds: text, device: text, help: { type: 'boolean' } },
  });
  if (values.help) {
    console.log(HELP);
    return;
  }
  const layers = Number(values.model ?? 16);
  const rounds = Number(values.rounds ?? 30);
  if (!Number.isInteger(layers) || layers < 0 || !Number.isInteger(rounds) || rounds < 1)
    throw new Error('Expected --model and --rounds to be whole numbers');
  const cases = [...(values.cases ?? CASES).split(',').map(parseCase), ...(layers > 0 ? [model(layers)] : [])];
  const device = (values.device ?? 'cuda') as Device;
  console.log(
    `${deviceOf(device).description}, Node ${process.version}, ${new Date().toISOString().slice(0, 10)}, median of ${rounds}\n`,
  );
  console.log(
    '| matrices | precision | Muon, ms | ROOT, ms | clip | effective | executed | host | memory, GiB |\n|---|---|---|---|---|---|---|---|---|',
  );
  for (const precision of (values.precision ?? 'float16').split(',') as Precision[]) {
    for (const one of cases) console.log(measure(one, precision, device, rounds));
  }
}

try {
  main();
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 1;
}
