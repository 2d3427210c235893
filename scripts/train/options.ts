import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { checkCoefficients, type Coefficients } from '../../lib/coefficients/option.js';
import { presetNames } from '../../lib/coefficients/presets.js';
import type { Precision, ThresholdOption } from '../../lib/index.js';
import { type OptimizerName, optimizerNames } from './optimizers.js';

const HELP = `Usage: npm run train -- [options]

Trains a small character-level GPT with each optimizer, from the same weights on the same batches. Writes metrics,
checkpoints and a report with loss curves to runs/<time>/.

  --optimizers <list>    one or more of ${optimizerNames.join(', ')} (default root,muon,adamw)
  --steps <n>            number of steps of each optimizer (default 200)
  --batch <n>            number of windows of text per step (default 16)
  --lr <list>            learning rates to try instead of each optimizer's own
  --coefficients <what>  coefficients of root and muon: ${presetNames.slice(0, 3).join(', ')},
                         ${presetNames.slice(3).join(', ')} (the default) or a file of root-optimizer calibrate
  --threshold <what>     the threshold at which root clips: a quantile, robust or none (default 0.9)
  --noise <kind>         none or spikes: heavy-tailed noise on the gradients of hidden matrices (default none)
  --data <path>          a file or folder of text (default TypeScript's own lib.*.d.ts)
  --seed <n>             seed of weights, batches and noise (default 1)
  --seeds <n>            repeat with this many seeds, from --seed on (default 1)
  --device <name>        device of the optimizers: auto, cpu, cuda or cuda:N (default auto)
  --precision <what>     precision of the products of root and muon: float16, bfloat16 or float32 (default float16);
                         float32 where the device lacks the given one
  --threads <n>          number of CPU threads of the optimizers (default 0, the physical cores)
  --out <folder>         the folder to write to instead of runs/<time>
  --help                 print this`;

export interface Options {
  optimizers: OptimizerName[];
  steps: number;
  batch: number;
  /** Undefined stands for each optimizer's own. */
  lrs: number[] | undefined;
  coefficients: Coefficients;
  threshold: ThresholdOption;
  noise: 'none' | 'spikes';
  data: string | undefined;
  seeds: number[];
  device: 'auto' | 'cpu' | 'cuda' | `cuda:${number}`;
  precision: Precision;
  threads: number;
  out: string | undefined;
}

/** An error in what the user typed. It is shown without a stack. */
export class UsageError extends Error {}

/**
 * @returns undefined where help was asked for, which has then been printed
 * @throws UsageError
 */
export function parseOptions(args: string[]): Options | undefined {
  const values = parseFlags(args);
  if (values.help) {
    console.log(HELP);
    return undefined;
  }
  const first = wholeNumber('seed', values.seed, 0);
  return {
    optimizers: parseOptimizers(values.optimizers),
    steps: wholeNumber('steps', values.steps, 1),
    batch: wholeNumber('batch', values.batch, 1, 4096),
    lrs: values.lr === undefined ? undefined : [...new Set(values.lr.split(',').map(parseLr))],
    coefficients: parseCoefficients(values.coefficients),
    threshold: parseThreshold(values.threshold),
    noise: oneOf('noise', values.noise, ['none', 'spikes']),
    data: values.data,
    seeds: Array.from({ length: wholeNumber('seeds', values.seeds, 1, 1000) }, (_, i) => first + i),
    device: parseDevice(values.device),
    precision: oneOf('precision', values.precision, ['float16', 'bfloat16', 'float32']),
    threads: wholeNumber('threads', values.threads, 0, 1024),
    out: values.out,
  };
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
        noise: { type: 'string', default: 'none' },
        data: { type: 'string' },
        seed: { type: 'string', default: '1' },
        seeds: { type: 'string', default: '1' },
        device: { type: 'string', default: 'auto' },
        precision: { type: 'string', default: 'float16' },
        threads: { type: 'string', default: '0' },
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
