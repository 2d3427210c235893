import {
  AdamW,
  type Device,
  devices,
  orthogonalizeSync,
  type OrthogonalState,
  Parameter,
  Root,
  type RootOptions,
  softThresholdSync,
} from '../lib/index.js';
import { parseShapes, readOptions, runMain } from './common/command.js';
import { relativeError } from './common/numbers.js';
import { gaussian, makeRandom } from './common/random.js';
import { markdownHead, markdownRow } from './common/tables.js';

const SHAPES = '1x33,40x24,72x72,65x200,200x65,300x300,129x600,3x40000';

const HELP = `Usage: npx tsx scripts/gpu-smoke.ts [options]

Runs every kernel of the CUDA backend once or more at small sizes, and prints its largest error against the CPU. Ends
with status 1 if an error is larger than it may be. Sanitizers can follow it.

  --device <name>  cuda or cuda:N (default cuda)
  --shapes <list>  rows x columns (default ${SHAPES})
  --help           print this`;

const limits = { float32: 1e-5, float16: 5e-3, bfloat16: 3e-2 };
const precisions = Object.keys(limits) as (keyof typeof limits)[];

runMain(() => {
  const options = readOptions(HELP, ['device', 'shapes']);
  if (options === undefined) return;
  const device = (options.device ?? 'cuda') as Device;
  const shapes = parseShapes(options.shapes ?? SHAPES);
  console.log(`${devices().cuda.devices[0]?.description ?? devices().cuda.reason ?? ''}\n`);
  console.log(markdownHead(['what', 'largest error', 'at most']));
  const report = (what: string, error: number, limit: number) => {
    console.log(markdownRow([what, error.toExponential(1), limit.toExponential(0)]));
    if (!(error <= limit)) process.exitCode = 1;
  };
  for (const precision of precisions) {
    const errors = shapes.map(([rows, columns]) => {
      const x = gaussian(rows * columns, makeRandom(rows, 'smoke'));
      const expected = orthogonalizeSync(x, [rows, columns], { device: 'cpu', precision: 'float32' });
      return [true, false].map((compensated) =>
        relativeError(orthogonalizeSync(x, [rows, columns], { device, precision, compensated }), expected),
      );
    });
    report(`orthogonalize, ${precision}`, Math.max(...errors.flat()), limits[precision]);
  }
  const steps: Record<string, RootOptions> = {
    'the paper’s': { gradientThreshold: null },
    'clipped gradients, rows': { gradientThreshold: {}, normalize: 'rows', weightDecayKind: 'cautious' },
    'robust thresholds': { gradientThreshold: 'robust', threshold: 'robust', nesterov: false },
  };
  for (const [name, settings] of Object.entries(steps)) {
    for (const precision of precisions) {
      const { data, thresholds } = train(shapes, { ...settings, device, precision }, { ...settings, device: 'cpu' });
      report(`ROOT, ${name}, ${precision}`, data, 2 * limits[precision]);
      report(`its thresholds, ${precision}`, thresholds, 0);
    }
  }
  report('AdamW', adamw(device), 1e-6);
  const x = gaussian(70_001, makeRandom(1, 'smoke'));
  const [there, here] = [device, 'cpu' as const].map((where) => softThresholdSync(x, { device: where }));
  report('softThreshold', relativeError(there!.outliers, here!.outliers), 0);
});

/**
 * Four steps on both devices, with two matrices of the last shape but one: the largest relative error of data, and
 * whether a threshold differs (1) or not (0).
 */
function train(
  shapes: readonly (readonly [rows: number, columns: number])[],
  onDevice: RootOptions,
  onHost: RootOptions,
): { data: number; thresholds: number } {
  const models = [onDevice, onHost].map((options) => {
    const random = makeRandom(3, 'smoke');
    const params = [...shapes, ...shapes.slice(-2, -1)].map(([rows, columns], i) => {
      return new Parameter({ name: `w${i}`, shape: [rows, columns] });
    });
    const vector = new Parameter({ name: 'v', shape: [1001], data: gaussian(1001, random) });
    const optimizer = new Root([...params, vector], { ...options, lr: 0.05, momentum: 0.5 });
    for (let step = 0; step < 4; step++) {
      for (const one of [...params, vector]) one.grad.set(gaussian(one.size, random));
      optimizer.stepSync();
    }
    const thresholds = params.map((one) => (optimizer.stateOf(one) as OrthogonalState).thresholds[0]);
    optimizer.dispose();
    return { params, thresholds };
  });
  const [a, b] = models as [(typeof models)[0], (typeof models)[0]];
  return {
    data: Math.max(...a.params.map((one, i) => relativeError(one.data, b.params[i]!.data))),
    thresholds: Number(a.thresholds.join() !== b.thresholds.join()),
  };
}

function adamw(device: Device): number {
  const [there, here] = [device, 'cpu' as const].map((where) => {
    const random = makeRandom(5, 'smoke');
    const params = [[70, 33], [5001], []].map((shape, i) => {
      const size = shape.reduce((product, side) => product * side, 1);
      return new Parameter({ name: `w${i}`, shape, data: gaussian(size, random) });
    });
    const optimizer = new AdamW(params, { device: where, lr: 0.01, gradientThreshold: {} });
    for (let step = 0; step < 3; step++) {
      for (const one of params) one.grad.set(gaussian(one.size, random));
      optimizer.stepSync();
    }
    optimizer.dispose();
    return params;
  });
  return Math.max(...there!.map((one, i) => relativeError(one.data, here![i]!.data)));
}
