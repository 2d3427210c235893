import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { devices, newtonSchulzCoefficients } from '../../lib/index.js';
import * as reference from '../reference.js';
import { bits, relativeError, runScript } from '../support.js';

/*
 * Products on matrix units, emulated bit for bit on every processor, and on the units where there are any. The tests of
 * `ROOT_OPTIMIZER_INSTRUCTION_SET=amx-emulated npx jest test/native test/optimizer` are those of all other sets.
 */

// Half units, units, parts of 256 columns, depths of more than 1024.
const shapes = [
  [1, 1],
  [3, 50],
  [16, 17],
  [33, 31],
  [48, 64],
  [65, 97],
  [257, 40],
  [40, 1060],
  [300, 290],
] as const;
const precisions = ['bfloat16', 'bfloat16x3'] as const;

interface Output {
  inputs: Float32Array[];
  /** By precision, shape and number of threads, 1 and 2. */
  results: Float32Array[][][];
}

function outputOn(set: 'amx' | 'amx-emulated'): Output {
  const text = runScript<{ inputs: string[]; results: string[][][] }>(
    `
    const uniform = (i, seed) => {
      let x = Math.imul(i + 1, 0x9e3779b1) ^ Math.imul(seed + 1, 0x85ebca6b);
      x = Math.imul(x ^ (x >>> 16), 0x7feb352d);
      x = Math.imul(x ^ (x >>> 15), 0x846ca68b);
      return ((x ^ (x >>> 16)) >>> 8) / 2 ** 24 - 0.5;
    };
    const shapes = ${JSON.stringify(shapes)};
    const inputs = shapes.map(([rows, columns], s) =>
      Float32Array.from({ length: rows * columns }, (_, i) => uniform(i, s)));
    const encoded = (values) => Buffer.from(values.buffer).toString('base64');
    const results = ${JSON.stringify(precisions)}.map((precision) =>
      shapes.map((shape, s) => [1, 2].map((threads) =>
        encoded(orthogonalizeSync(inputs[s], shape, { precision, threads, device: 'cpu', coefficients: 'muon' })))));
    console.log(JSON.stringify({ inputs: inputs.map(encoded), results }));`,
    { ROOT_OPTIMIZER_INSTRUCTION_SET: set },
  );
  const decoded = (one: string) => new Float32Array(Uint8Array.from(Buffer.from(one, 'base64')).buffer);
  return {
    inputs: text.inputs.map(decoded),
    results: text.results.map((list) => list.map((pair) => pair.map(decoded))),
  };
}

const { inputs, results: emulated } = outputOn('amx-emulated');

const isX64 = process.arch === 'x64';

test.each(precisions.flatMap((precision, p) => shapes.map((shape, s) => [precision, ...shape, p, s] as const)))(
  '%s, %i × %i agrees with float64, on any number of threads to the bit',
  (precision, rows, columns, p, s) => {
    const triples = newtonSchulzCoefficients([rows, columns], 'muon');
    const expected = reference.newtonSchulz(Float64Array.from(inputs[s]!), rows, columns, triples);
    const [one, two] = emulated[p]![s]!;
    expect(relativeError(one!, expected)).toBeLessThan(precision === 'bfloat16' ? 3e-2 : 1e-4);
    expect(bits(two!)).toBe(bits(one!));
  },
);

(isX64 ? test : test.skip)('every machine has the same bits', () => {
  const hash = createHash('sha256');
  for (const pair of emulated.flat()) hash.update(new Uint8Array(pair[0]!.buffer));
  expect(hash.digest('hex').slice(0, 16)).toBe('d7a30e62c5f0bf48');
});

const hasTiles = devices().cpu.instructionSet === 'amx';
(hasTiles ? test : test.skip)('the units have the bits of the emulation', () => {
  outputOn('amx').results.forEach((list, p) => {
    list.forEach(([one], s) => {
      expect(bits(one!)).toBe(bits(emulated[p]![s]![0]!));
    });
  });
});

// The code for the units as the compiler made it. Where there are none, each of its instructions traps, and the test's
// program does what the instruction says.
test('the compiled code for the units has the bits of the emulation', () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'root-optimizer-'));
  try {
    const program = path.join(folder, 'tiles');
    const compiler = process.env['CXX'] ?? 'c++';
    const flags = ['-std=c++20', '-O3', '-ffp-contract=off', '-Wno-psabi', '-o', program];
    execFileSync(compiler, [...flags, path.join(__dirname, 'tiles.cpp')], { stdio: 'pipe' });
    const output = execFileSync(program, { encoding: 'utf8' });
    expect(output).toMatch(/^(\d+ products alike|skipped: .*)\n$/);
    if (output.startsWith('skipped')) console.warn(output);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
