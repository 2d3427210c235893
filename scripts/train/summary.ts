import { deviation, mean, median } from '../common/numbers.js';
import type { TrialResult } from './trial.js';

/** The results of an optimizer over its seeds. */
export interface SummaryRow {
  readonly label: string;
  readonly lr: number;
  /** Last validation losses in nats per byte, one for each seed. */
  readonly losses: readonly number[];
  /** Medians over all steps except each trial's first, in which the model is compiled. */
  readonly stepMilliseconds: number;
  readonly optimizerMilliseconds: number;
}

/** Returns a row for each optimizer and learning rate with at least one known validation loss. */
export function summarize(results: readonly TrialResult[]): SummaryRow[] {
  return [...new Set(results.map(({ trial }) => trial.label))].flatMap((label) => {
    const own = results.filter(({ trial }) => trial.label === label);
    const losses = own.map(lastLoss).filter((loss) => loss !== undefined);
    const steps = own.flatMap(({ history }) => (history.length > 1 ? history.slice(1) : history));
    if (losses.length === 0) return [];
    return {
      label,
      lr: own[0]!.trial.lr,
      losses,
      stepMilliseconds: median(steps.map((step) => step.milliseconds)),
      optimizerMilliseconds: median(steps.map((step) => step.optimizerMilliseconds)),
    };
  });
}

function lastLoss({ history }: TrialResult): number | undefined {
  return history.findLast((step) => step.evaluation !== undefined)?.evaluation;
}

/** The cells of the table, for the terminal and the report. The first row is the head. */
export function tableCells(rows: readonly SummaryRow[]): string[][] {
  const several = rows.some((row) => row.losses.length > 1);
  const head = [
    'optimizer',
    'learning rate',
    several ? 'validation loss, mean ± deviation' : 'validation loss',
    'time a step',
    'in the optimizer',
  ];
  return [
    head,
    ...rows.map(({ label, lr, losses, stepMilliseconds, optimizerMilliseconds }) => [
      label.split(' ')[0]!,
      String(lr),
      several ? `${mean(losses).toFixed(3)} ± ${deviation(losses).toFixed(3)}` : losses[0]!.toFixed(3),
      `${stepMilliseconds.toFixed(0)} ms`,
      `${((100 * optimizerMilliseconds) / stepMilliseconds).toFixed(1)} %`,
    ]),
  ];
}
