import { writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import type { TopLevelSpec } from 'vega-lite';
import { devices, orthogonalizeSync, Parameter, Root } from '../../lib/index.js';

const HELP = `Usage: npm run bench:growth -- [options]

How the time grows with the work: nanoseconds per multiply-add of the plain iteration against the size of a matrix, at odd sizes and powers of
two as well, and the time of a step against the number of matrices. Everything takes turns in five rounds. Writes two charts, and prints how odd
sizes compare with the multiple of 16 beside them.

  --out <file>   the picture, as SVG (default growth.svg)
  --json <file>  the figures
  --help         print this`;

interface SizePoint {
  size: number;
  shape: '1:1' | '1:4';
  /** One thread. */
  picosecondsEach: number;
}

interface CountPoint {
  matrices: number;
  threads: string;
  milliseconds: number;
}

const sizes = [
  ...[48, 64, 65, 79, 80, 96, 127, 128, 129, 144, 191, 192, 193, 208, 255, 256, 257, 272, 383, 384, 385, 400],
  ...[511, 512, 513, 528, 767, 768, 769, 784, 1023, 1024, 1025, 1040],
];

async function main(): Promise<void> {
  const text = { type: 'string' } as const;
  const { values } = parseArgs({ options: { out: text, json: text, help: { type: 'boolean' } } });
  if (values.help) {
    console.log(HELP);
    return;
  }
  const matrices = sizes.flatMap((size) => [oneMatrix(size, 1), oneMatrix(size, 4)]);
  const counts = [1, devices().cpu.physicalCores].flatMap((threads) =>
    [1, 2, 4, 8, 16, 32, 64].map((count) => manyMatrices(count, threads)),
  );
  const rounds = Array.from({ length: 5 }, () => [...matrices, ...counts].map(({ run }) => median(run)));
  const typical = (figure: (round: number[]) => number) => middle(rounds.map(figure));
  const bySize = matrices.map(({ size, aspect }, i): SizePoint => ({
    size,
    shape: aspect === 1 ? '1:1' : '1:4',
    picosecondsEach: typical((round) => round[i]! * perElement(size, aspect)),
  }));
  const byCount = counts.map(({ count, threads }, i): CountPoint => ({
    matrices: count,
    threads: `${threads} thread${threads === 1 ? '' : 's'}`,
    milliseconds: typical((round) => round[matrices.length + i]!),
  }));
  matrices.forEach(({ size, aspect }, i) => {
    const neighbour = matrices.findIndex(
      (other) => other.aspect === aspect && other.size === 16 * Math.round(size / 16),
    );
    const over = typical(
      (round) =>
        (round[i]! * perElement(size, aspect)) / (round[neighbour]! * perElement(matrices[neighbour]!.size, aspect)),
    );
    const { shape, picosecondsEach } = bySize[i]!;
    console.log(
      `${String(size).padStart(5)}  ${shape}  ${picosecondsEach.toFixed(2)} ps${neighbour === i ? '' : `, ${over.toFixed(2)} of ${matrices[neighbour]!.size}`}`,
    );
  });
  for (const { matrices, threads, milliseconds } of byCount)
    console.log(`${String(matrices).padStart(5)} matrices  ${threads}  ${milliseconds.toFixed(2)} ms`);
  if (values.json !== undefined)
    writeFileSync(values.json, `${JSON.stringify({ date: new Date().toISOString(), bySize, byCount }, null, 2)}\n`);
  writeFileSync(values.out ?? 'growth.svg', await draw(bySize, byCount));
}

/** Picoseconds for each of the m·n·m·10 + m³·5 multiply-adds of the plain five iterations that a millisecond makes. */
function perElement(size: number, aspect: number): number {
  return 1e9 / (size ** 3 * (10 * aspect + 5));
}

function oneMatrix(size: number, aspect: 1 | 4): { size: number; aspect: 1 | 4; run: () => unknown } {
  const shape = [size, aspect * size];
  const x = gaussian(size * size * aspect);
  const out = new Float32Array(x.length);
  return { size, aspect, run: () => orthogonalizeSync(x, shape, { threads: 1, device: 'cpu', out }) };
}

function manyMatrices(count: number, threads: number): { count: number; threads: number; run: () => unknown } {
  const parameters = Array.from(
    { length: count },
    (_, i) => new Parameter({ name: `w${i}`, shape: [256, 256], grad: gaussian(256 * 256) }),
  );
  const optimizer = new Root(parameters, { threads, device: 'cpu' });
  return { count, threads, run: () => optimizer.stepSync() };
}

/** Of at least 3 calls and 60 ms, after one that does not count. */
function median(call: () => unknown): number {
  call();
  const samples: number[] = [];
  for (const started = performance.now(); samples.length < 3 || performance.now() - started < 60;) {
    const before = performance.now();
    call();
    samples.push(performance.now() - before);
  }
  return middle(samples);
}

function middle(values: number[]): number {
  return values.sort((a, b) => a - b)[values.length >> 1]!;
}

function gaussian(size: number): Float32Array {
  return Float32Array.from(
    { length: size },
    () => Math.sqrt(-2 * Math.log(1 - Math.random())) * Math.cos(2 * Math.PI * Math.random()),
  );
}

async function draw(bySize: SizePoint[], byCount: CountPoint[]): Promise<string> {
  // Modules that `require` cannot load in all versions of Node.
  const [vega, { compile }] = await Promise.all([import('vega'), import('vega-lite')]);
  const mark = { type: 'line', point: { size: 18, filled: true }, strokeWidth: 1.5 } as const;
  const range = ['#c2410c', '#0067b1'];
  const chart: TopLevelSpec = {
    background: 'white',
    padding: 8,
    hconcat: [
      {
        width: 400,
        height: 260,
        title: 'One matrix, one thread',
        data: { values: bySize },
        mark,
        encoding: {
          x: {
            field: 'size',
            type: 'quantitative',
            title: 'shorter side',
            scale: { type: 'log', nice: false },
            axis: { values: [64, 128, 256, 512, 1024] },
          },
          y: {
            field: 'picosecondsEach',
            type: 'quantitative',
            title: 'ps per multiply-add of the plain form',
            scale: { zero: true },
          },
          color: { field: 'shape', type: 'nominal', scale: { range }, legend: { title: 'shape' } },
        },
      },
      {
        width: 300,
        height: 260,
        title: 'A step on matrices of 256 × 256',
        data: { values: byCount },
        mark,
        encoding: {
          x: {
            field: 'matrices',
            type: 'quantitative',
            scale: { type: 'log', base: 2 },
            axis: { values: [1, 2, 4, 8, 16, 32, 64] },
          },
          y: { field: 'milliseconds', type: 'quantitative', title: 'ms', scale: { type: 'log' } },
          color: { field: 'threads', type: 'nominal', scale: { range }, legend: { title: null } },
        },
      },
    ],
    resolve: { scale: { color: 'independent' } },
    config: { font: 'system-ui, sans-serif', view: { stroke: null }, axis: { gridOpacity: 0.4 } },
  };
  const view = new vega.View(vega.parse(compile(chart).spec), { renderer: 'none', logLevel: vega.Error });
  const svg = await view.toSVG();
  view.finalize();
  return `${svg}\n`;
}

main().catch((error: unknown) => {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 1;
});
