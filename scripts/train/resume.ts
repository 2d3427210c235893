import { existsSync, readFileSync, truncateSync } from 'node:fs';
import path from 'node:path';
import { replaceFile } from '../../lib/checkpoint/temporary.js';
import type { StepMetrics } from '../../lib/index.js';
import type { Trial, TrialResult } from './trial.js';

const file = (folder: string) => path.join(folder, 'trials.json');
const keyOf = ({ label, seed }: Trial) => `${label}, seed ${seed}`;

/** Leaves in the folder of a run what metrics and checkpoints do not hold of its trials. */
export function writeTrials(folder: string, results: readonly TrialResult[]): void {
  const rest = results.map(({ trial, orthogonality, sample }) => [keyOf(trial), { orthogonality, sample }] as const);
  replaceFile(file(folder), JSON.stringify(Object.fromEntries(rest)));
}

/** Reads what a run that was stopped or killed left of its trials. */
export function readTrials(folder: string): (trial: Trial) => TrialResult {
  const rest = existsSync(file(folder))
    ? (JSON.parse(readFileSync(file(folder), 'utf8')) as Record<string, Partial<TrialResult>>)
    : {};
  const lines = readMetrics(path.join(folder, 'metrics.jsonl'));
  return (trial) => {
    const { orthogonality = [], sample } = rest[keyOf(trial)] ?? {};
    // After the last checkpoint a step may have been taken twice. The later line counts.
    const steps = new Map<number, StepMetrics>();
    for (const { optimizer, hiddenLr, seed, ...metrics } of lines) {
      const isOfTrial = optimizer === trial.optimizer && hiddenLr === trial.lr && seed === trial.seed;
      if (isOfTrial) steps.set(metrics.step, metrics);
    }
    const history = [...steps.values()].sort((a, b) => a.step - b.step);
    return { trial, history, orthogonality: [...orthogonality], ...(sample === undefined ? {} : { sample }) };
  };
}

type Line = StepMetrics & { optimizer: string; hiddenLr: number; seed: number };

/**
 * A process that was killed may have left a part of a last line, which goes, because further lines are appended. JSON
 * has null for a loss that is not finite.
 */
function readMetrics(name: string): Line[] {
  if (!existsSync(name)) return [];
  const text = readFileSync(name, 'utf8');
  const lines = text.split('\n');
  if (lines.at(-1) !== '') truncateSync(name, Buffer.byteLength(text.slice(0, text.lastIndexOf('\n') + 1)));
  return lines.slice(0, -1).map((line) => JSON.parse(line, (_, value: unknown) => value ?? NaN) as Line);
}
