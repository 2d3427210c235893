import { accessSync, constants } from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { replaceFile } from '../checkpoint/temporary.js';
import { mostFitted } from '../coefficients/adaptive.js';
import { messageOf, printable } from '../errors.js';
import { oneOf } from '../validate.js';
import { calibrate, type CalibrateBy, type CalibratedParameter } from './fit-checkpoint.js';
import { calibrationReport } from './report.js';
import { formatTable } from './table.js';

const help = `Usage: root-optimizer calibrate <checkpoint> [options]

Fits the coefficients of the Newton-Schulz iteration to the momentum in a checkpoint of optimizer.save. Writes a
file; the option \`coefficients\` of an optimizer or of a group takes its parsed content.

  --steps <n>    number of iterations to fit, 1 to ${mostFitted} (default 5)
  --per <what>   which matrices share coefficients: those of a shape (the default), of a parameter, or of a group, which
                 is all parameters with the same settings
  --out <file>   the file to write (default coefficients.json)
  --html <file>  also draw the spectra and maps to this file
  --help         print this

The errors that it prints are distances to the polar factor of the checkpoint's momentum, ‖X − UVᵀ‖ / √m.`;

const checkBy = oneOf('shape', 'parameter', 'group');

/**
 * `root-optimizer calibrate`.
 * @returns the exit status
 * @throws RootError ERR_CHECKPOINT
 */
export async function calibrateCommand(args: string[]): Promise<number> {
  const options = parse(args);
  if (typeof options === 'string') {
    console.error(`${options}\n\n${help}`);
    return 2;
  }
  if (options === undefined) {
    console.log(help);
    return 0;
  }
  const { out, html } = options;
  const targets = html === undefined ? [out] : [out, html];
  // A folder that cannot be written to is reported before the work, not after it.
  for (const target of targets) accessSync(path.dirname(path.resolve(target)), constants.W_OK);
  const result = await calibrate(options.file, options.steps, options.per);
  console.log(table(result.parameters));
  const contents = [
    `${JSON.stringify(result.calibration, null, 1)}\n`,
    calibrationReport(result, path.basename(options.file)),
  ];
  for (const [i, target] of targets.entries()) replaceFile(target, contents[i]!);
  console.log(`\n${out}: ${result.calibration.entries.length} entries of ${options.steps} iterations. To use it:`);
  console.log(`  coefficients: JSON.parse(readFileSync(${JSON.stringify(out)}, 'utf8'))`);
  if (html !== undefined) console.log(html);
  return 0;
}

interface Options {
  readonly file: string;
  readonly steps: number;
  readonly per: CalibrateBy;
  readonly out: string;
  readonly html: string | undefined;
}

/** Returns the options, a text that says what is wrong with them, or undefined where help was asked for. */
function parse(args: string[]): Options | string | undefined {
  const text = { type: 'string' } as const;
  try {
    const { values, positionals } = parseArgs({
      args,
      allowPositionals: true,
      options: { steps: text, per: text, out: text, html: text, help: { type: 'boolean', short: 'h' } },
    });
    if (values.help === true) return undefined;
    const [file, ...rest] = positionals;
    if (file === undefined || rest.length > 0) return `Expected one checkpoint, got ${positionals.length}.`;
    const steps = Number(values.steps ?? 5);
    if (!Number.isInteger(steps) || steps < 1 || steps > mostFitted) {
      return `Expected --steps to be an integer in [1, ${mostFitted}], got "${String(values.steps)}".`;
    }
    const { out = 'coefficients.json', html } = values;
    const files = [file, out, ...(html === undefined ? [] : [html])].map((one) => path.resolve(one));
    if (new Set(files).size < files.length) return 'Expected the checkpoint, --out and --html to be different files.';
    return { file, steps, per: checkBy(values.per ?? 'shape', '--per'), out, html };
  } catch (error) {
    return messageOf(error);
  }
}

function table(parameters: readonly CalibratedParameter[]): string {
  const head = ['parameter', 'matrices', 'best preset', '', 'adaptive', 'calibrated', 'against best'];
  const rows = parameters.map(({ name, matrices, bestPreset, errors, exact }) => [
    printable(name),
    `${matrices.length === 1 ? '' : `${matrices.length} of `}${matrices[0]!.join('×')}${exact ? '' : ' (estimated)'}`,
    bestPreset,
    ...[errors.best, errors.adaptive, errors.calibrated].map((error) => error.toFixed(5)),
    change(errors.calibrated, errors.best),
  ]);
  const errors = (['best', 'adaptive', 'calibrated'] as const).map((kind) => {
    return Math.sqrt(parameters.reduce((sum, one) => sum + one.errors[kind] ** 2, 0) / parameters.length);
  });
  const [best, , calibrated] = errors as [number, number, number];
  rows.push(['root mean square', '', '', ...errors.map((error) => error.toFixed(5)), change(calibrated, best)]);
  return formatTable([head, ...rows], (column) => column < 3);
}

function change(value: number, reference: number): string {
  const percent = (value / reference - 1) * 100;
  return `${percent > 0 ? '+' : percent < 0 ? '−' : ''}${Math.abs(percent).toFixed(1)} %`;
}
