// How many kernels a step launches, as the emulator records them.
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { devicesUnderTest, isEmulated, runScript } from '../support.js';

const device = devicesUnderTest().find((one) => one !== 'cpu') ?? 'cuda';
const onEmulator = isEmulated(device) ? describe : describe.skip;

type Shapes = [rows: number, columns: number][];
const models: Record<string, Shapes> = {
  'one shape, often': Array.from({ length: 49 }, () => [8, 8]),
  'many shapes': [
    [8, 24],
    [24, 8],
    [8, 8],
    [10, 7],
    [7, 10],
    [1, 30],
    [16, 8],
  ],
};
const cases = [
  ['Muon', '{}', 6],
  ['Root', '{ gradientThreshold: null }', 12],
  ['Root', '{}', 18],
] as const;

/** The kernels of two steps. */
function launchesOf(shapes: Shapes, optimizer: string, options: string): { kernel: string; blocks: number }[] {
  const folder = mkdtempSync(path.join(tmpdir(), 'root-optimizer-'));
  const file = path.join(folder, 'launches.jsonl');
  try {
    runScript(
      `const random = (size) => Float32Array.from({ length: size }, () => Math.random() - 0.5);
      const parameter = (name, shape) => {
        const size = shape.reduce((a, b) => a * b);
        return new Parameter({ name, shape, data: random(size), grad: random(size) });
      };
      const matrices = ${JSON.stringify(shapes)}.map((shape, i) => parameter('matrix' + i, shape));
      const vectors = [5000, 3, 40].map((size, i) => parameter('vector' + i, [size]));
      const groups = [{ params: matrices }, { params: vectors, algorithm: 'adamw' }];
      const optimizer = new ${optimizer}(groups, { ...${options}, device: 'cuda:0' });
      optimizer.stepSync();
      optimizer.stepSync();
      console.log('null');`,
      { EMULATOR_TRAFFIC: file },
    );
    const lines = readFileSync(file, 'utf8').trim().split('\n');
    return lines.map((line) => JSON.parse(line) as { kernel: string; blocks: number });
  } finally {
    rmSync(folder, { recursive: true });
  }
}

onEmulator('a step launches each pass once', () => {
  test.each(Object.keys(models).flatMap((name) => cases.map((one) => [name, ...one] as const)))(
    '%s: %s %s makes %d launches besides products',
    (name, optimizer, options, count) => {
      const launches = launchesOf(models[name]!, optimizer, options);
      // Small matrices have their products in one launch for each shape.
      const shapes = new Set(models[name]!.map((shape) => shape.join()));
      const products = launches.filter(({ kernel }) => /^(gemm|add_|newton_schulz)/.test(kernel));
      expect(products.map(({ kernel }) => kernel)).toEqual(
        Array.from({ length: 2 * shapes.size }, () => 'newton_schulz'),
      );
      const passes = launches.filter((one) => !products.includes(one));
      expect(passes).toHaveLength(2 * count);
      // AdamW takes blocks by the size of each parameter: two for the longest one, and one for each other.
      const blocks = passes.filter(({ kernel }) => kernel === 'adamw').map((one) => one.blocks);
      expect(blocks).toEqual([4, 4]);
    },
  );
});
