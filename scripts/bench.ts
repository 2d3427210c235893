import { writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { Bench } from 'tinybench';
import { Parameter, Root, devices, orthogonalizeSync } from '../lib/index.js';

const SHAPES = '128x128,256x1024,512x512,768x768,768x3072,1024x1024,1024x4096';

const HELP = `Usage: npm run bench -- [options]

Median times of orthogonalising one matrix, and of a whole ROOT step on one parameter, per shape.
GFLOP/s counts what five plain Newton-Schulz iterations take, 5·(4·m²·n + 2·m³) with m ≤ n, however few are done.

  --shapes <list>  as rows x columns (default ${SHAPES})
  --threads <n>    CPU threads; 0, the default: the physical cores
  --json <file>    write the figures to a file as well
  --help           print this`;

interface Figure {
  milliseconds: number;
  gflops: number;
  repeats: number;
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      shapes: { type: 'string', default: SHAPES },
      threads: { type: 'string', default: '0' },
      json: { type: 'string' },
      help: { type: 'boolean' },
    },
  });
  if (values.help) {
    console.log(HELP);
    return;
  }
  const shapes = values.shapes.split(',').map(parseShape);
  const threads = parseThreads(values.threads);
  const { cpu } = devices();

  console.log(`${cpu.description}, ${cpu.instructionSet}, ${threads || cpu.physicalCores} threads, Node ${process.version}\n`);
  console.log('                 orthogonalize           ROOT step');
  console.log('shape              ms     GFLOP/s        ms     GFLOP/s');
  const rows = [];
  for (const shape of shapes) {
    const row = { shape, ...(await measure(shape, threads)) };
    rows.push(row);
    console.log(shape.join('x').padEnd(12) + format(row.orthogonalize) + format(row.step));
  }
  if (values.json !== undefined) {
    writeFileSync(values.json, `${JSON.stringify({ cpu, threads, node: process.version, rows }, null, 2)}\n`);
  }
}

function parseShape(text: string): [number, number] {
  const [, rows, columns] = /^([1-9]\d*)x([1-9]\d*)$/.exec(text.trim()) ?? [];
  if (rows === undefined || columns === undefined) throw new Error(`Expected a shape such as 256x1024, got "${text}"`);
  return [Number(rows), Number(columns)];
}

function parseThreads(text: string): number {
  if (!/^\d+$/.test(text)) throw new Error(`Expected --threads to be a whole number, got "${text}"`);
  return Number(text);
}

async function measure(shape: [number, number], threads: number): Promise<{ orthogonalize: Figure; step: Figure }> {
  const size = shape[0] * shape[1];
  const x = gaussian(size);
  const parameter = new Parameter({ name: 'w', shape, data: gaussian(size), grad: gaussian(size) });
  const optimizer = new Root([parameter], { lr: 1e-3, threads });

  const bench = new Bench({ time: 1000, iterations: 7, warmupTime: 100, warmupIterations: 2, throws: true });
  bench.add('orthogonalize', () => orthogonalizeSync(x, shape, { threads }));
  bench.add('step', () => optimizer.stepSync());
  await bench.run();
  optimizer.dispose();

  const m = Math.min(...shape);
  const flop = 5 * (4 * m * size + 2 * m ** 3);
  const figure = (name: string): Figure => {
    const result = bench.getTask(name)?.result;
    if (result?.state !== 'completed') throw new Error(`${name} was not measured`);
    const { p50, samplesCount } = result.latency;
    return { milliseconds: p50, gflops: flop / p50 / 1e6, repeats: samplesCount };
  };
  return { orthogonalize: figure('orthogonalize'), step: figure('step') };
}

/** Standard normal values: of zeros the processor makes short work. */
function gaussian(size: number): Float32Array {
  return Float32Array.from({ length: size }, () => {
    const radius = Math.sqrt(-2 * Math.log(1 - Math.random()));
    return radius * Math.cos(2 * Math.PI * Math.random());
  });
}

function format({ milliseconds, gflops }: Figure): string {
  return milliseconds.toFixed(2).padStart(10) + gflops.toFixed(0).padStart(12);
}

main().catch((error: unknown) => {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 1;
});
