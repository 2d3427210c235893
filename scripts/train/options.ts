import { readFileSync } from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { checkCoefficients, type Coefficients } from '../../lib/coefficients/option.js';
import { presetNames } from '../../lib/coefficients/presets.js';
import type { Precision, ThresholdOption } from '../../lib/index.js';
import { type NoiseKind, noiseKinds } from './noise.js';
import { type OptimizerName, optimizerNames, type StepOptions } from './optimizers.js';

const HELP = `Usage: npm run train -- [options]

Trains a small character-level GPT with each optimizer, from the same weights on the same batches. Writes metrics,
checkpoints and a report with loss curves to runs/<time>/.

  --optimizers <list>    one or more of ${optimizerNames.join(', ')} (default root,muon,adamw)
  --steps <n>            number of steps of each optimizer (default 200)
  --batch <n>            number of windows of text per step (default 16)
  --lr <list>            learning rates to try instead of each optimizer's own
  --coefficients <what>  coefficients of root and muon: ${presetNames.slice(0, 4).join(', ')},
                         ${presetNames.slice(4).join(', ')} (the default) or a file of root-optimizer calibrate
  --threshold <what>     the threshold at which root clips: a quantile, robust or none (default 0.9)
  --gradient-threshold <what>
                         the threshold at which the gradient is clipped before the momentum: a quantile, robust,
                         on (the quantile 0.99) or off (default on for root, off for muon and adamw)
  --growth <n>           the limit on a gradient's growth, in multiples of the usual threshold, or off; needs
                         --gradient-threshold (default 2)
  --normalize <what>     rows: gives the rows of root's and muon's updates the same size; off (the default)
  --noise <kind>         noise in training (default none):
                           spikes: 0.1 % of the entries of hidden gradients gain 100 standard deviations
                           burst: at one step of 50, hidden gradients are replaced by noise 100 times as large
                           student: every entry of hidden gradients gains noise with heavy tails
                           labels: a tenth of the targets are random
  --data <path>          a file or folder of text (default TypeScript's own lib.*.d.ts)
  --seed <n>             seed of weights, batches and noise (default 1)
  --seeds <n>            repeat with this many seeds, from --seed on (default 1)
  --device <name>        device of the optimizers: auto, cpu, cuda or cuda:N (default auto)
  --precision <what>     precision of the products of root and muon: float16, bfloat16, bfloat16x3, float32 or auto
                         (default auto)
  --threads <n>          number of CPU threads of the optimizers (default 0, the physical cores)
  --repeat <file>        take the options of an earlier run from its config.json; those given beside it come first,
                         those that are in neither have the defaults of this version
  --resume <folder>      go on with a run that was stopped or killed, with its options and in its folder
  --out <folder>         the folder to write to instead of runs/<time>
  --help                 print this`;

export interface Options extends StepOptions {
  optimizers: OptimizerName[];
  steps: number;
  batch: number;
  /** Undefined stands for each optimizer's own. */
  lrs: number[] | undefined;
  coefficients: Coefficients;
  threshold: ThresholdOption;
  noise: NoiseKind;
  data: string | undefined;
  seeds: number[];
  device: 'auto' | 'cpu' | 'cuda' | `cuda:${number}`;
  precision: 'auto' | Precision;
  threads: number;
  out: string | undefined;
  /** The folder of the run to go on with. */
  resume: string | undefined;
  /** The options as they were typed, with defaults, except --out, --repeat and --resume. `--repeat` reads them. */
  flags: Readonly<Record<string, string>>;
}

/** An error in what the user typed. It is shown without a stack. */
export class UsageError extends Error {}

/**
 * @returns undefined where help was asked for, which has then been printed
 * @throws UsageError
 */
export function parseOptions(args: string[]): Options | undefined {
  const given = parseFlags(args);
  if (given.help) {
    console.log(HELP);
    return undefined;
  }
  const values = withRecorded(given, args);
  const { out, help, repeat, resume, ...flags } = values;
  const first = wholeNumber('seed', values.seed, 0);
  return {
    optimizers: parseOptimizers(values.optimizers),
    steps: wholeNumber('steps', values.steps, 1),
    batch: wholeNumber('batch', values.batch, 1, 4096),
    lrs: values.lr === undefined ? undefined : [...new Set(values.lr.split(',').map(parseLr))],
    coefficients: parseCoefficients(values.coefficients),
    threshold: parseThreshold(values.threshold),
    ...parseGradientThreshold(values['gradient-threshold'], values.growth),
    ...parseNormalize(values.normalize),
    noise: oneOf('noise', values.noise, noiseKinds),
    data: values.data,
    seeds: Array.from({ length: wholeNumber('seeds', values.seeds, 1, 1000) }, (_, i) => first + i),
    device: parseDevice(values.device),
    precision: oneOf('precision', values.precision, ['auto', 'float16', 'bfloat16', 'bfloat16x3', 'float32']),
    threads: wholeNumber('threads', values.threads, 0, 1024),
    out,
    resume,
    flags,
  };
}

/** @returns the options that apply: with --repeat and --resume, those of an earlier run as well */
function withRecorded(given: ReturnType<typeof parseFlags>, args: string[]): ReturnType<typeof parseFlags> {
  const { resume, repeat } = given;
  if (resume === undefined) {
    return repeat === undefined ? given : parseFlags([...recordedFlags('repeat', repeat), ...args]);
  }
  const others = args.filter((arg) => arg.startsWith('--') && !/^--resume(=|$)/.test(arg));
  if (others.length > 0) throw new UsageError(`Expected --resume without other options, got ${others.join(', ')}`);
  return parseFlags([...recordedFlags('resume', path.join(resume, 'config.json')), ...args]);
}

/** Reads the options of a run from the config.json that it wrote, as arguments. */
function recordedFlags(flag: 'repeat' | 'resume', file: string): string[] {
  try {
    const { flags } = JSON.parse(readFileSync(file, 'utf8')) as { flags?: Record<string, string> };
    if (flags === undefined) throw new Error('it has no "flags"');
    return Object.entries(flags).map(([name, value]) => `--${name}=${value}`);
  } catch (cause) {
    const problem = (cause as Error).message;
    const wanted = flag === 'repeat' ? 'the config.json of a run' : 'the folder of a run';
    throw new UsageError(`Expected --${flag} to be ${wanted}, got "${file}": ${problem}`, { cause });
  }
}

function parseFlags(args: string[]) {
  try {
    return parseArgs({
      args,
      options: {
        optimizers: { type: 'string', default: 'root,muon,adamw' },
        steps: { type: 'string', default: '200' },
        batch: { type: 'string', default: '16' },
        lr: { type: 'string' },
        coefficients: { type: 'string', default: 'adaptive' },
        threshold: { type: 'string', default: '0.9' },
        'gradient-threshold': { type: 'string' },
        growth: { type: 'string' },
        normalize: { type: 'string' },
        noise: { type: 'string', default: 'none' },
        data: { type: 'string' },
        seed: { type: 'string', default: '1' },
        seeds: { type: 'string', default: '1' },
        device: { type: 'string', default: 'auto' },
        precision: { type: 'string', default: 'auto' },
        threads: { type: 'string', default: '0' },
        repeat: { type: 'string' },
        resume: { type: 'string' },
        out: { type: 'string' },
        help: { type: 'boolean', short: 'h' },
      },
    }).values;
  } catch (cause) {
    const [sentence] = (cause as Error).message.split(/\. |\n/);
    throw new UsageError(`${sentence}; --help lists the options`, { cause });
  }
}

function wholeNumber(flag: string, text: string, least: number, most = 1e9): number {
  const value = Number(text);
  if (!/^\d+$/.test(text) || value < least || value > most) {
    throw new UsageError(`Expected --${flag} to be a whole number in [${least}, ${most}], got "${text}"`);
  }
  return value;
}

function parseLr(text: string): number {
  const value = Number(text);
  if (text.trim() === '' || !(value > 0 && value <= 10)) {
    throw new UsageError(`Expected --lr to be numbers in (0, 10], got "${text}"`);
  }
  return value;
}

function parseCoefficients(text: string): Coefficients {
  if (presetNames.some((name) => name === text)) return checkCoefficients(text);
  try {
    return checkCoefficients(JSON.parse(readFileSync(text, 'utf8')));
  } catch (cause) {
    const choices = `one of ${presetNames.join(', ')} or a file that root-optimizer calibrate wrote`;
    throw new UsageError(`Expected --coefficients to be ${choices}, got "${text}": ${(cause as Error).message}`, {
      cause,
    });
  }
}

function parseThreshold(text: string): ThresholdOption {
  if (text === 'robust') return text;
  if (text === 'none') return null;
  const quantile = Number(text);
  if (text.trim() === '' || !(quantile >= 0 && quantile <= 1)) {
    throw new UsageError(`Expected --threshold to be a quantile in [0, 1], robust or none, got "${text}"`);
  }
  return { quantile };
}

/** The robust rule with a growth limit of one's own is written out, since `'robust'` has no place for it. */
function parseGradientThreshold(text: string | undefined, growthText: string | undefined): StepOptions {
  if (growthText !== undefined && (text === undefined || text === 'off')) {
    throw new UsageError('Expected --growth beside --gradient-threshold, which is on');
  }
  if (text === undefined) return {};
  if (text === 'off') return { gradientThreshold: null };
  const growth = growthText === undefined ? {} : { growth: parseGrowth(growthText) };
  if (text === 'on') return { gradientThreshold: growth };
  if (text === 'robust') {
    const robust = { quantile: 0.5, scale: 3.5 / 0.6745 };
    return { gradientThreshold: growthText === undefined ? 'robust' : { ...robust, ...growth } };
  }
  const quantile = Number(text);
  if (text.trim() === '' || !(quantile >= 0 && quantile <= 1)) {
    throw new UsageError(`Expected --gradient-threshold to be a quantile in [0, 1], robust, on or off, got "${text}"`);
  }
  return { gradientThreshold: { quantile, ...growth } };
}

function parseGrowth(text: string): number | null {
  if (text === 'off') return null;
  const value = Number(text);
  if (text.trim() === '' || !(value > 0 && value < Infinity)) {
    throw new UsageError(`Expected --growth to be a number above 0 or off, got "${text}"`);
  }
  return value;
}

function parseNormalize(text: string | undefined): StepOptions {
  if (text === undefined) return {};
  return { normalize: oneOf('normalize', text, ['rows', 'off']) === 'rows' ? 'rows' : null };
}

function oneOf<const T extends string>(flag: string, text: string, choices: readonly T[]): T {
  const found = choices.find((choice) => choice === text);
  if (found === undefined) throw new UsageError(`Expected --${flag} to be one of ${choices.join(', ')}, got "${text}"`);
  return found;
}

function parseOptimizers(text: string): OptimizerName[] {
  const names = text.split(',').map((name) => oneOf('optimizers', name.trim(), optimizerNames));
  return [...new Set(names)];
}

function parseDevice(text: string): Options['device'] {
  if (!/^(auto|cpu|cuda|cuda:\d+)$/.test(text)) {
    throw new UsageError(`Expected --device to be auto, cpu, cuda or cuda:N, got "${text}"`);
  }
  return text as Options['device'];
}
