import { spawnSync } from 'node:child_process';
import path from 'node:path';
import { newtonSchulzCoefficients, type RootErrorCode } from '../../lib/index.js';
import * as reference from '../reference.js';
import { gaussian, relativeError } from '../support.js';

/** A child process, in which the instruction set can still be chosen, runs this with the addon alone. */
const program = `
  const { addon, shapes, coefficients } = JSON.parse(require('fs').readFileSync(0, 'utf8'));
  const native = require(addon);
  try {
    const results = shapes.map(({ rows, columns, input }) => {
      const output = new Float32Array(input.length);
      const [x, triples] = [Float32Array.from(input), Float64Array.from(coefficients)];
      native.orthogonalizeSync('cpu', 2, 'float32', false, x, output, [{ offset: 0, rows, columns }], [triples]);
      return Array.from(output);
    });
    // Momentum, threshold, clip and update go through the sets' own transposes as well.
    const steps = shapes.map(({ rows, columns, input }, i) => {
      const [data, gradient] = [Float32Array.from(input).reverse(), Float32Array.from(input)];
      const layout = { size: data.length, matrices: [{ offset: 0, rows, columns }] };
      const optimizer = new native.Optimizer('cpu', 2, 'float32', false, [layout]);
      const matrices = [{ updateScale: 1, coefficients: Float64Array.from(coefficients) }];
      const threshold = { quantile: 0.9, scale: 1 };
      const clip = { quantile: 0.8, scale: 1, growth: 2 };
      const options =
        i % 2 === 0
          ? { cautious: false, gradientThreshold: null, normalize: null }
          : { cautious: false, gradientThreshold: clip, normalize: { beta2: 0.9 } };
      const settings = { lr: 0.1, momentum: 0.9, nesterov: true, weightDecay: 0.1, threshold, matrices, ...options };
      for (let step = 0; step < 2; step++) optimizer.stepSync([data], [gradient], [settings]);
      const momentumBuffer = new Float32Array(data.length);
      optimizer.readState(0, 'momentumBuffer', 0, momentumBuffer);
      const { thresholds } = optimizer.found(0);
      return { data: Array.from(data), momentumBuffer: Array.from(momentumBuffer), threshold: thresholds[0] };
    });
    console.log(JSON.stringify({ used: native.devices().cpu.instructionSet, results, steps }));
  } catch (error) {
    console.log(JSON.stringify({ code: error.code, message: error.message }));
  }
`;

interface Output {
  used?: string;
  results?: number[][];
  steps?: { data: number[]; momentumBuffer: number[]; threshold: number }[];
  code?: RootErrorCode;
  message?: string;
}

// The shapes lie at tile, panel and block edges of every set: rows of 4 and 8, panels of 12, 24 and 48, blocks of 192.
const shapes = [
  [1, 1],
  [3, 50],
  [50, 3],
  [12, 25],
  [47, 49],
  [96, 97],
  [129, 130],
  [193, 191],
  [65, 261],
  [200, 410],
  [410, 200],
] as const;
const inputs = shapes.map(([rows, columns], i) => ({
  rows,
  columns,
  input: Array.from(gaussian(rows * columns, i + 1)),
}));
const triples = newtonSchulzCoefficients([1, 1], 'polar-express');

function run(set: string): Output {
  const addon = path.resolve(
    process.env['ROOT_OPTIMIZER_ADDON'] ?? path.join(__dirname, '..', '..', 'build', 'Release', 'root_optimizer.node'),
  );
  const input = JSON.stringify({ addon, shapes: inputs, coefficients: triples.flat() });
  const env = { ...process.env, ROOT_OPTIMIZER_INSTRUCTION_SET: set };
  const { stdout, stderr } = spawnSync(process.execPath, ['-e', program], {
    input,
    env,
    encoding: 'utf8',
    maxBuffer: 1 << 28,
  });
  if (stdout === '') throw new Error(stderr);
  return JSON.parse(stdout) as Output;
}

const outputs = new Map(['avx512', 'avx2', 'neon', 'baseline'].map((set) => [set, run(set)]));
const available = [...outputs].filter(([, { results }]) => results !== undefined).map(([set]) => set);

test('the narrowest set of the processor is among those that it runs', () => {
  expect(available).toContain(process.arch === 'arm64' ? 'neon' : 'baseline');
});

test.each(available)('%s agrees with float64 at every edge', (set) => {
  const { used, results } = outputs.get(set)!;
  expect(used).toBe(set);
  inputs.forEach(({ rows, columns, input }, i) => {
    const expected = reference.newtonSchulz(Float64Array.from(input), rows, columns, triples);
    expect(relativeError(results![i]!, expected)).toBeLessThan(1e-4);
  });
});

test.each(available)('%s takes the same steps, with the same thresholds to the bit', (set) => {
  const narrowest = outputs.get(available.at(-1)!)!.steps!;
  outputs.get(set)!.steps!.forEach(({ data, momentumBuffer, threshold }, i) => {
    expect(threshold).toBe(narrowest[i]!.threshold);
    expect(momentumBuffer).toEqual(narrowest[i]!.momentumBuffer);
    expect(relativeError(data, narrowest[i]!.data)).toBeLessThan(1e-5);
  });
});

test('a set that the processor lacks, or that does not exist, is refused by name', () => {
  const refused = [...outputs].filter(([set]) => !available.includes(set)).map(([, output]) => output);
  for (const { code, message } of [...refused, run('sse9')]) {
    expect(code).toBe('ERR_INVALID_ARGUMENT');
    expect(message).toMatch(/Expected ROOT_OPTIMIZER_INSTRUCTION_SET to be one of .*(baseline|neon).*, got/);
  }
});
