// Takes steps on an emulated device that records its kernels, and prints what each launch of a step moved, as JSON.
// scripts/cuda-report/traffic.ts runs it.
import { readFileSync, rmSync } from 'node:fs';
import { Muon, Parameter, Root } from '../../lib/index.js';
import { paper } from '../common/paper.js';
import { gaussian, makeRandom } from '../common/random.js';

/** What the emulator records of a launch; bytes of device memory. */
export interface Launch {
  readonly kernel: string;
  readonly reads: number;
  readonly writes: number;
}

export interface Steps {
  /** Elements that ROOT or Muon updates, and those that AdamW does. */
  readonly elements: number;
  readonly moments: number;
  /** The launches of the first step, and of one whose thresholds lie near those of the step before. */
  readonly first: readonly Launch[];
  readonly later: readonly Launch[];
}

type Shape = [rows: number, columns: number];

export const models = {
  /** GPT-2's shapes, with two layers and a width just above that of small matrices. */
  gpt: { matrices: layers(2, 136), vectors: [[136], [136], [500, 136]] },
  /** Matrices as large as GPT-2 small's, but with fewer operations in their products. */
  large: {
    matrices: [
      [192, 3072],
      [3072, 192],
    ] as Shape[],
    vectors: [[589_824]],
  },
} as const;

export const optimizers = {
  Muon: { make: Muon, options: {} },
  'Muon, lr 0': { make: Muon, options: { lr: 0, weightDecay: 0 } },
  'ROOT of the paper': { make: Root, options: paper },
  ROOT: { make: Root, options: {} },
} as const;

export type Report = Record<keyof typeof models, Record<keyof typeof optimizers, Steps>>;

function layers(count: number, width: number): Shape[] {
  const one: Shape[] = [
    [width, 3 * width],
    [width, width],
    [width, 4 * width],
    [4 * width, width],
  ];
  return Array.from({ length: count }, () => one).flat();
}

function takeSteps(
  { matrices, vectors }: (typeof models)[keyof typeof models],
  { make, options }: (typeof optimizers)[keyof typeof optimizers],
  file: string,
): Steps {
  const parameter = (shape: readonly number[], i: number, kind: string) => {
    const values = (purpose: string) =>
      gaussian(
        shape.reduce((a, b) => a * b, 1),
        makeRandom(i, kind + purpose),
      );
    return new Parameter({ name: `${kind}${i}`, shape: [...shape], data: values('data'), grad: values('gradient') });
  };
  const hidden = matrices.map((shape, i) => parameter(shape, i, 'matrix'));
  const others = vectors.map((shape, i) => parameter(shape, i, 'vector'));
  // With this momentum thresholds soon stay where they are.
  const optimizer = new make([{ params: hidden }, { params: others, algorithm: 'adamw' }], {
    ...options,
    device: 'cuda:0',
    momentum: 0.3,
    steps: matrices.length > 2 ? 5 : 1,
  });
  const step = (): Launch[] => {
    rmSync(file, { force: true });
    optimizer.stepSync();
    return readFileSync(file, 'utf8')
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as Launch);
  };
  const first = step();
  step();
  step();
  const later = step();
  optimizer.dispose();
  const count = (list: readonly Parameter[]) => list.reduce((sum, { data }) => sum + data.length, 0);
  return { elements: count(hidden), moments: count(others), first, later };
}

if (require.main === module) {
  const file = process.env['EMULATOR_TRAFFIC'] ?? '';
  const report = Object.entries(models).map(([name, model]) => [
    name,
    Object.fromEntries(Object.entries(optimizers).map(([one, how]) => [one, takeSteps(model, how, file)])),
  ]);
  console.log(JSON.stringify(Object.fromEntries(report)));
}
