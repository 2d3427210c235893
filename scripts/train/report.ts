import path from 'node:path';
import { replaceFile } from '../../lib/checkpoint/temporary.js';
import { drawLossCurves } from './loss-chart.js';
import type { NoiseKind } from './noise.js';
import { drawOrthogonality, drawSpectra } from './orthogonality-chart.js';
import { summarize, tableCells } from './summary.js';
import type { Setup, TrialResult } from './trial.js';

const STYLE = `
:root { color-scheme: light dark; --page: #fff; --ink: #1c2330; --muted: #5b6472; --line: #d9dee5; --panel: #f5f7f9;
  --series-0: #c2410c; --series-1: #0067b1; --series-2: #0f7b55; --series-3: #8b3fa8;
  --series-4: #8a6100; --series-5: #b0246a; --series-6: #3f5bd0; --series-7: #4f6b1c; }
@media (prefers-color-scheme: dark) {
  :root { --page: #14181f; --ink: #e6eaf0; --muted: #a2acba; --line: #343c48; --panel: #1c222b;
    --series-0: #ff9457; --series-1: #63b3f5; --series-2: #4fd1a1; --series-3: #d59bea;
    --series-4: #e6bf4f; --series-5: #ff8fbf; --series-6: #9db0ff; --series-7: #b7d66b; } }
body { margin: 0 auto; padding: 2rem 1.25rem 3rem; max-width: 60rem; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: 0 0 .25rem; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
p { margin: .25rem 0; } .muted { color: var(--muted); }
svg { min-width: 42rem; max-width: 100%; height: auto; color: var(--ink); }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem 1.4rem .35rem 0; text-align: right; border-bottom: 1px solid var(--line);
  white-space: nowrap; }
th { font-weight: 600; }
th:first-child, td:first-child { text-align: left; }
pre { margin: 0; padding: .75rem 1rem; background: var(--panel); border-radius: 6px; font-size: 13px;
  line-height: 1.45; white-space: pre-wrap; overflow-wrap: anywhere; }
pre b { color: var(--muted); font-weight: 400; } h3 { font-size: .95rem; margin: 1rem 0 .35rem; }`;

/** The state of the run. `stopped` means by Ctrl-C. */
export type RunState = { state: 'running' | 'ended' | 'stopped' } | { state: 'failed'; error: unknown };

/** Writes report.html, one file that loads no other. The file is replaced whole each time. */
export async function writeReport(
  results: readonly TrialResult[],
  setup: Setup,
  config: object,
  state: RunState,
): Promise<void> {
  replaceFile(path.join(setup.folder, 'report.html'), await renderReport(results, setup, config, state));
}

async function renderReport(
  results: readonly TrialResult[],
  { options, corpus, prompt }: Setup,
  config: object,
  state: RunState,
): Promise<string> {
  const chart = await drawLossCurves(results, options.steps, corpus.unigramEntropy);
  const noise = describeNoise(options.noise);
  const samples = results.flatMap(({ trial, sample }) => {
    if (sample === undefined) return [];
    const seed = options.seeds.length > 1 ? `, seed ${trial.seed}` : '';
    const [given, written] = [prompt, sample].map((tokens) => escape(decode(tokens, corpus.vocabulary)));
    return `<h3>${escape(trial.label)}${seed}</h3>\n<pre><b>${given}</b>${written}</pre>`;
  });
  return `<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Training report</title>
<style>${STYLE}</style>
<h1>Training report</h1>
<p>${escape(describeState(state))}${options.steps} steps of ${options.batch} windows${noise}.
${escape(corpus.description)}.</p>
<p class="muted">Losses are in nats per byte. Byte frequencies alone give ${corpus.unigramEntropy.toFixed(3)}.</p>
<div class="scroll">${chart}</div>
<h2>Results</h2>
<div class="scroll">${htmlTable(tableCells(summarize(results)))}</div>
${await renderOrthogonality(results, options.steps)}<h2>Samples</h2>
<p class="muted">What each model goes on with after the grey text, at temperature 0.8.</p>
${samples.join('\n')}
<h2>Configuration</h2>
<pre>${escape(JSON.stringify(config, null, 2))}</pre>
</html>
`;
}

function describeNoise(kind: NoiseKind): string {
  switch (kind) {
    case 'none':
      return '';
    case 'spikes':
      return ', with spikes in the gradients of hidden matrices';
    case 'burst':
      return ', with bursts of noise in place of the gradients of hidden matrices';
    case 'student':
      return ', with heavy-tailed noise on the gradients of hidden matrices';
    case 'labels':
      return ', with a tenth of the targets random';
  }
}

async function renderOrthogonality(results: readonly TrialResult[], steps: number): Promise<string> {
  const [errors, spectra] = [await drawOrthogonality(results, steps), await drawSpectra(results)];
  if (errors === undefined || spectra === undefined) return '';
  const matrix = results.find(({ orthogonality }) => orthogonality.length > 0)!.orthogonality[0]!.matrix;
  return `<h2>Orthogonality</h2>
<p class="muted">Distance of what the iterations return, for two matrices, from the polar factor UVᵀ, whose singular
values are all 1.</p>
<div class="scroll">${errors}</div>
<p class="muted">Singular values of ${escape(matrix)} before the iterations, divided by its Frobenius norm, and after
them.</p>
<div class="scroll">${spectra}</div>
`;
}

function describeState(run: RunState): string {
  switch (run.state) {
    case 'running':
      return 'Still running. ';
    case 'ended':
      return '';
    case 'stopped':
      return 'Stopped before its end. ';
    case 'failed':
      return `Failed: ${run.error instanceof Error ? run.error.message : String(run.error)}. `;
  }
}

function htmlTable([head, ...rows]: string[][]): string {
  const line = (cells: string[], tag: string): string =>
    `<tr>${cells.map((cell) => `<${tag}>${escape(cell)}</${tag}>`).join('')}</tr>`;
  return `<table>\n${[line(head!, 'th'), ...rows.map((row) => line(row, 'td'))].join('\n')}\n</table>`;
}

/** Turns tokens into text. A dot stands for each control character, since a terminal might obey it. */
export function decode(tokens: ArrayLike<number>, vocabulary: Uint8Array): string {
  const bytes = Uint8Array.from(tokens, (token) => vocabulary[token]!);
  const text = new TextDecoder().decode(bytes);
  return text.replace(/\r\n?/g, '\n').replace(/(?![\t\n])\p{Cc}/gu, '·');
}

function escape(text: string): string {
  return text.replace(/[&<>"]/g, (character) => `&#${character.codePointAt(0)!};`);
}
