// `npx tsx scripts/compare-coefficients.ts [iterations …]` prints the error of every preset on Gaussian and decaying
// spectra, as a table in Markdown.
import { compose } from '../lib/coefficients/bounds.js';
import { newtonSchulzCoefficients } from '../lib/coefficients/option.js';
import type { Preset } from '../lib/coefficients/presets.js';
import type { Triple } from '../lib/coefficients/triple.js';
import { markdownHead, markdownRow } from './common/tables.js';

const shapes = [64, 128, 256, 512, 768, 1024, 2048, 4096, 8192, 16384].flatMap((m) =>
  [1, 2, 4, 16].filter((ratio) => m * ratio <= 16384).map((ratio): [number, number] => [m, m * ratio]),
);
const presets: readonly Preset[] = ['adaptive', 'muon', 'paper', 'polar-express', 'cans', 'quintic', 'cubic5'];
/** It is made for ten iterations, which its column has in every table. */
const long: Preset = 'deepseek-v4';

interface Errors {
  readonly gaussian: number;
  readonly decaying: number;
  readonly mixture: number;
}

/** √(mean of (σ − 1)²) on spectra that are finer than those of the fit. */
function errorsOf([m, n]: readonly [number, number], triples: readonly Triple[]): Errors {
  const square = (x: number) => (compose(triples, x) - 1) ** 2;
  const r = Math.sqrt(m / n);
  let [gaussian, total] = [0, 0];
  for (let i = 0.5; i < 4096; i++) {
    const phi = Math.PI * (i / 4096) ** 2;
    const eigenvalue = 1 + r * r - 2 * r * Math.cos(phi);
    const weight = (Math.sin(phi) ** 2 / eigenvalue) * i;
    gaussian += weight * square(Math.sqrt(eigenvalue / m));
    total += weight;
  }
  gaussian /= total;
  let decaying = 0;
  for (let p = 0.5; p < 1.01; p += 0.05) {
    const values = Array.from({ length: m }, (_, i) => (i + 1) ** -p);
    const norm = Math.sqrt(values.reduce((sum, value) => sum + value * value, 0));
    decaying += values.reduce((sum, value) => sum + square(value / norm), 0) / m / 11;
  }
  return {
    gaussian: Math.sqrt(gaussian),
    decaying: Math.sqrt(decaying),
    mixture: Math.sqrt((3 * gaussian + decaying) / 4),
  };
}

const digits = (value: number) => (value < 0.01 ? value.toExponential(1) : value.toFixed(3).slice(1));

/** Formats values as cells, the least of them bold. */
function cells(values: readonly number[]): string[] {
  const least = Math.min(...values);
  return values.map((value) => (value === least ? `**${digits(value)}**` : digits(value)));
}

for (const steps of process.argv.length > 2 ? process.argv.slice(2).map(Number) : [4, 5, 6]) {
  console.log(`\n### ${steps} iterations\n`);
  const heads = [...presets, `${long}, 10 iterations`, 'Gaussian: adaptive', 'muon', 'decaying: adaptive', 'muon'];
  console.log(markdownHead(['shape', ...heads]));
  for (const shape of shapes) {
    const errors = presets.map((preset) => errorsOf(shape, newtonSchulzCoefficients(shape, preset, steps)));
    const [adaptive, muon] = errors as [Errors, Errors];
    const mixtures = cells(errors.map(({ mixture }) => mixture));
    const gaussian = cells([adaptive.gaussian, muon.gaussian]);
    const decaying = cells([adaptive.decaying, muon.decaying]);
    const ofLong = digits(errorsOf(shape, newtonSchulzCoefficients(shape, long)).mixture);
    console.log(markdownRow([shape.join('×'), ...mixtures, ofLong, ...gaussian, ...decaying]));
  }
}
