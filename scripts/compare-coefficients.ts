// `npx tsx scripts/compare-coefficients.ts`: the error of every preset on Gaussian and decaying spectra, as a table in Markdown.
import { newtonSchulzCoefficients, type Preset, type Triple } from '../lib/coefficients.js';
import { adaptiveTriples } from '../lib/adaptive.js';

const shapes = [64, 128, 256, 512, 768, 1024, 2048, 4096, 8192, 16384].flatMap((m) =>
  [1, 2, 4, 16].filter((ratio) => m * ratio <= 16384).map((ratio): [number, number] => [m, m * ratio]),
);
const presets: readonly Preset[] = ['muon', 'paper', 'polar-express', 'cans', 'quintic'];

/** Mean squares of σ − 1, on spectra that are finer than those of the fit. */
function meanSquares([m, n]: readonly [number, number], triples: readonly Triple[]): { gaussian: number; decaying: number } {
  const after = (x: number) => (triples.reduce((value, [a, b, c]) => value * (a + value * value * (b + value * value * c)), x) - 1) ** 2;
  const r = Math.sqrt(m / n);
  let [gaussian, total] = [0, 0];
  for (let i = 0.5; i < 4096; i++) {
    const phi = Math.PI * (i / 4096) ** 2;
    const eigenvalue = 1 + r * r - 2 * r * Math.cos(phi);
    const weight = (Math.sin(phi) ** 2 / eigenvalue) * i;
    gaussian += weight * after(Math.sqrt(eigenvalue / m));
    total += weight;
  }
  let decaying = 0;
  for (let p = 0.5; p < 1.01; p += 0.05) {
    const values = Array.from({ length: m }, (_, i) => (i + 1) ** -p);
    const norm = Math.sqrt(values.reduce((sum, value) => sum + value * value, 0));
    decaying += values.reduce((sum, value) => sum + after(value / norm), 0) / m / 11;
  }
  return { gaussian: gaussian / total, decaying };
}

function root({ gaussian, decaying }: { gaussian: number; decaying: number }): number {
  return Math.sqrt((3 * gaussian + decaying) / 4);
}

const digits = (value: number) => (value < 0.01 ? value.toExponential(1) : value.toFixed(3).slice(1));

for (const steps of process.argv.length > 2 ? process.argv.slice(2).map(Number) : [4, 5, 6]) {
  console.log(`\n### ${steps} iterations\n`);
  console.log(`| shape | adaptive | ${presets.join(' | ')} | Gaussian: adaptive | muon | decaying: adaptive | muon |`);
  console.log(`|---|---|${presets.map(() => '---|').join('')}---|---|---|---|`);
  for (const shape of shapes) {
    const adaptive = meanSquares(shape, adaptiveTriples(...shape, steps));
    const others = presets.map((preset) => meanSquares(shape, newtonSchulzCoefficients(shape, preset, steps)));
    const muon = others[0]!;
    const mixtures = [adaptive, ...others].map(root).map(digits);
    const parts = [adaptive.gaussian, muon.gaussian, adaptive.decaying, muon.decaying].map((square) => digits(Math.sqrt(square)));
    console.log(`| ${shape.join('×')} | **${mixtures[0]!}** | ${[...mixtures.slice(1), ...parts].join(' | ')} |`);
  }
}
