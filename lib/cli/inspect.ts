import { cut, printable } from '../errors.js';
import { nearest } from '../validate.js';
import { startActivity } from './activity.js';
import { type InspectedParameter, type InspectedTensor, type Inspection, inspectFile } from './inspect-file.js';
import { drawBars, spectrumDecades } from './plot.js';
import { formatTable } from './table.js';
import { parseCommand, UsageError } from './usage.js';

export const inspectHelp = `Usage: root-optimizer inspect <file.safetensors> [options]

Prints the tensors of a safetensors file, of this package or of any other program: types, shapes, norms and small plots
of the singular values. Of a checkpoint it also prints thresholds, and the share of the momentum that they clip.

  --spectra <which>  auto, the matrices that take a few seconds in all (the default), all, or none
  --json             print everything as JSON, the spectra of every matrix among it
  --help             print this`;

const choices = ['auto', 'all', 'none'] as const;

/**
 * `root-optimizer inspect`.
 * @returns the exit status
 * @throws UsageError; RootError ERR_CHECKPOINT
 */
export async function inspectCommand(args: string[]): Promise<number> {
  const { values, positionals } = parseCommand(args, {
    spectra: { type: 'string', default: 'auto' },
    json: { type: 'boolean', default: false },
    help: { type: 'boolean', short: 'h' },
  });
  if (values.help === true) {
    console.log(inspectHelp);
    return 0;
  }
  const [file, ...rest] = positionals;
  if (file === undefined || rest.length > 0) throw new UsageError(`Expected one file, got ${positionals.length}.`);
  const spectra = choices.find((one) => one === values.spectra);
  if (spectra === undefined) {
    const near = nearest(values.spectra, choices);
    const hint = near === undefined ? '' : ` Did you mean ${near}?`;
    throw new UsageError(`Expected --spectra to be auto, all or none, got "${printable(values.spectra)}".${hint}`);
  }
  const activity = startActivity(`inspecting ${printable(file)}`);
  let found: Inspection;
  try {
    found = await inspectFile(file, spectra, (done, total, name) =>
      activity.update(done, `tensor ${done + 1} of ${total}, ${printable(cut(name))}`),
    );
  } finally {
    activity.end();
  }
  console.log(values.json ? JSON.stringify(found, null, 2) : describe(found));
  return 0;
}

function describe(found: Inspection): string {
  const { file, bytes, step, notes, parameters, tensors } = found;
  const what = step === null ? 'a safetensors file' : `a checkpoint of step ${step}`;
  const head = `${printable(file)}: ${what}, ${tensors.length} tensors, ${size(bytes)}`;
  const told = notes.length === 0 ? [] : [`notes: ${notes.map((name) => printable(cut(name))).join(', ')}`];
  const parts = [[head, ...told].join('\n')];
  if (parameters.length > 0) parts.push(`${parameterTable(parameters)}\n\n${legend}`);
  if (tensors.length > 0) parts.push(tensorTable(tensors));
  return parts.join('\n\n');
}

const legend = `ε: where the last step clipped the look-ahead. clipped: the share of Σ|M| of the momentum that the
setting clips. ε_G: where the last step clipped the gradient. usual: the running mean of ε_G.`;

function parameterTable(parameters: readonly InspectedParameter[]): string {
  const head = ['parameter', 'shape', 'algorithm', 'lr', 'ε', 'clipped', 'ε_G', 'usual'];
  const rows = parameters.map((one) => [
    name(one.name),
    one.shape.join('×'),
    one.algorithm,
    one.lr === null ? '–' : number(one.lr),
    span(one.thresholds, number),
    span(one.clipped, (share) => `${(100 * share).toFixed(1)} %`),
    span(one.gradientThresholds, number),
    span(one.gradientScales, number),
  ]);
  return formatTable([head, ...rows], (column) => column < 3);
}

function tensorTable(tensors: readonly InspectedTensor[]): string {
  const withSpectra = tensors.some(({ spectra }) => spectra.length > 0);
  const head = ['tensor', 'type', 'shape', 'norm', 'rms', 'largest', 'rank', 'singular values'];
  const rows = tensors.map((one) => {
    const { spectra } = one;
    const estimated = spectra.some(({ exact }) => !exact) ? ' estimated' : '';
    return [
      name(one.name),
      printable(cut(one.type)),
      one.shape.join('×'),
      ...[one.norm, one.rms, one.largest].map((value) => (value === null ? '–' : number(value))),
      spectra.length === 0 ? '' : mean(spectra.map(({ stableRank }) => stableRank)).toFixed(1),
      (spectra.length === 0 ? '' : `│${drawBars(meanOf(spectra.map(({ histogram }) => histogram)))}│${estimated}`) +
        (one.nonFinite === null || one.nonFinite === 0 ? '' : `${one.nonFinite} not finite`),
    ];
  });
  const cells = [head, ...rows].map((row) => (withSpectra ? row : row.filter((_, column) => column !== 6)));
  if (!withSpectra) cells[0]!.pop();
  if (!withSpectra) cells[0]!.push('');
  const last = withSpectra ? 7 : 6;
  const table = formatTable(cells, (column) => column < 3 || column === last);
  if (!withSpectra) return table;
  const range = `1e-${spectrumDecades} σ₁ on the left to σ₁ on the right`;
  return `${table}\n\nrank: ‖X‖² / σ₁². Singular values are counted in bins from ${range}.`;
}

function name(text: string): string {
  return printable(text.length > 60 ? `${text.slice(0, 59)}…` : text);
}

/** One value, or the least and the largest of several. */
function span(values: readonly (number | null)[], format: (value: number) => string): string {
  const known = values.filter((value) => value !== null);
  if (known.length === 0) return '–';
  const [least, most] = [Math.min(...known), Math.max(...known)].map(format) as [string, string];
  return least === most ? least : `${least} to ${most}`;
}

function number(value: number): string {
  const digits = Math.abs(value);
  return digits === 0 || (digits >= 1e-3 && digits < 1e5)
    ? String(Number(value.toPrecision(3)))
    : value.toExponential(1);
}

function size(bytes: number): string {
  return bytes < 1e6 ? `${(bytes / 1e3).toFixed(1)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}

function mean(values: readonly number[]): number {
  return values.reduce((a, b) => a + b, 0) / values.length;
}

function meanOf(lists: readonly (readonly number[])[]): number[] {
  return lists[0]!.map((_, i) => mean(lists.map((list) => list[i]!)));
}
