import { compose } from '../coefficients/bounds.js';
import { newtonSchulzCoefficients } from '../coefficients/option.js';
import type { Triple } from '../coefficients/triple.js';
import type { CalibratedParameter, CalibrationResult } from './fit-checkpoint.js';

const width = 330;
const height = 190;
const margin = { left: 34, right: 8, top: 8, bottom: 34 };
const decades = 6;
const mostAfter = 1.4;

const style = `
:root { color-scheme: light dark; --text: #1d1d1f; --page: #fff; --line: #c9c9ce;
  --before: #8a8a94; --preset: #b45309; --fit: #1d4ed8 }
@media (prefers-color-scheme: dark) { :root { --text: #ececf1; --page: #17171a; --line: #45454d;
  --before: #9a9aa6; --preset: #f5a524; --fit: #7aa2ff } }
body { background: var(--page); color: var(--text); font: 15px/1.5 system-ui, sans-serif; max-width: 1080px;
  margin: 2em auto; padding: 0 1em }
h2 { font-size: 1.05em; margin: 2em 0 0.2em } p { margin: 0.2em 0 0.6em }
figure { display: flex; flex-wrap: wrap; gap: 12px; margin: 0 }
svg { max-width: 100%; height: auto } text { fill: var(--text); font-size: 11px } .axis { stroke: var(--line) }
.before { fill: var(--before) } .preset { fill: var(--preset); stroke: var(--preset) }
.fit { fill: var(--fit); stroke: var(--fit) } path { fill: none !important; stroke-width: 1.6 }
.steps { fill-opacity: 0.55; stroke: none } .key { font-weight: 600 } .key.fit { color: var(--fit) }
.key.preset { color: var(--preset) }`;

/**
 * Returns a page that needs no other file. For every parameter it shows the spectrum before and after the iterations,
 * and the maps that lead from one to the other.
 */
export function calibrationReport({ parameters, calibration }: CalibrationResult, file: string): string {
  const sections = parameters.map((parameter) => section(parameter, calibration.steps)).join('\n');
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Calibration to ${escape(file)}</title><style>${style}</style></head><body>
<h1>Calibration to ${escape(file)}</h1>
<p>Singular values of the clipped momentum, divided by its Frobenius norm, before and after ${calibration.steps}
iterations, and the map from one to the other, by the <span class="key fit">calibrated coefficients</span> and by the
<span class="key preset">best fixed preset</span>.
Errors are ‖X − UVᵀ‖ / √m.</p>
${sections}
</body></html>
`;
}

function section(parameter: CalibratedParameter, steps: number): string {
  const { name, matrices, bestPreset, errors, coefficients, exact } = parameter;
  const preset = newtonSchulzCoefficients(matrices[0]!, bestPreset, steps);
  const shapes = [...new Set(matrices.map((shape) => shape.join(' × ')))].join(', ');
  const count = matrices.length === 1 ? '' : `${matrices.length} matrices of `;
  const [calibrated, best, adaptive] = [errors.calibrated, errors.best, errors.adaptive].map((one) => one.toFixed(5));
  return `<section><h2>${escape(name)}</h2>
<p>${count}${shapes}${exact ? '' : ', estimated'}: error ${calibrated}, ${bestPreset} ${best}, adaptive ${adaptive}</p>
<figure>${before(parameter)}${after(parameter, preset, coefficients)}${maps(preset, coefficients)}</figure></section>`;
}

function before({ spectrum }: CalibratedParameter): string {
  const counts = histogram(spectrum, (value) => (Math.log10(Math.max(value, 1e-12)) + decades) / decades);
  return plot('singular values before', logTicks(), [bars(counts, 'before', Math.max(...counts))]);
}

function after({ spectrum }: CalibratedParameter, preset: readonly Triple[], fit: readonly Triple[]): string {
  const counts = [preset, fit].map((triples) => histogram(spectrum, (value) => compose(triples, value) / mostAfter));
  const most = Math.max(...counts.flat());
  const ticks = [0, 0.25, 0.5, 0.75, 1, 1.25].map((value): [number, string] => [value / mostAfter, String(value)]);
  return plot('singular values after', ticks, [bars(counts[0]!, 'preset', most), bars(counts[1]!, 'fit', most)]);
}

function maps(preset: readonly Triple[], fit: readonly Triple[]): string {
  const curve = (triples: readonly Triple[], name: string) => {
    const points = Array.from({ length: 301 }, (_, i) => {
      const value = compose(triples, 10 ** ((i / 300 - 1) * decades));
      return `${place(i / 300).toFixed(1)},${level(value / mostAfter).toFixed(1)}`;
    });
    return `<path class="${name}" d="M${points.join('L')}"/>`;
  };
  const y = level(1 / mostAfter);
  const line = `<line class="axis" stroke-dasharray="3" x1="${place(0)}" x2="${place(1)}" y1="${y}" y2="${y}"/>`;
  const one = `${line}<text x="20" y="${y + 4}">1</text>`;
  return plot('composed map', logTicks(), [one, curve(preset, 'preset'), curve(fit, 'fit')]);
}

/** Returns the shares of 48 bins from 0 to 1. Values beyond either end count in the outermost bin. */
function histogram({ values, weights }: CalibratedParameter['spectrum'], at: (value: number) => number): number[] {
  const counts = new Array<number>(48).fill(0);
  for (const [i, value] of values.entries()) {
    counts[Math.min(Math.max(Math.floor(at(value) * 48), 0), 47)]! += weights[i]!;
  }
  return counts;
}

function bars(counts: readonly number[], name: string, most: number): string {
  const size = (place(1) - place(0)) / counts.length;
  const shown = counts.map((count, i) => {
    if (count === 0) return '';
    const top = level(count / most);
    const [x, y, width, height] = [place(i / counts.length), top, size - 0.5, level(0) - top].map((n) => n.toFixed(1));
    return `<rect x="${x}" y="${y}" width="${width}" height="${height}"/>`;
  });
  return `<g class="${name} steps">${shown.join('')}</g>`;
}

function plot(title: string, ticks: readonly [number, string][], content: readonly string[]): string {
  const labels = ticks.map(
    ([at, label]) =>
      `<text x="${place(at).toFixed(1)}" y="${height - margin.bottom + 14}" text-anchor="middle">${label}</text>`,
  );
  const axis = `<line class="axis" x1="${place(0)}" x2="${place(1)}" y1="${level(0)}" y2="${level(0)}"/>`;
  const caption = `<text x="${place(0.5)}" y="${height - 4}" text-anchor="middle">${title}</text>`;
  const size = `viewBox="0 0 ${width} ${height}" width="${width}" height="${height}"`;
  const drawn = [axis, ...labels, caption, ...content].join('');
  return `<svg role="img" aria-label="${title}" ${size}>${drawn}</svg>`;
}

function logTicks(): [number, string][] {
  return Array.from({ length: decades / 2 + 1 }, (_, i) => [
    (2 * i) / decades,
    i * 2 === decades ? '1' : `10<tspan dy="-4" font-size="8">−${decades - 2 * i}</tspan>`,
  ]);
}

function place(share: number): number {
  return margin.left + share * (width - margin.left - margin.right);
}

function level(share: number): number {
  return height - margin.bottom - share * (height - margin.top - margin.bottom);
}

function escape(text: string): string {
  return text.replace(/&/g, '&amp;').replace(/</g, '&lt;').replace(/>/g, '&gt;').replace(/"/g, '&quot;');
}
