import type { TopLevelSpec } from 'vega-lite';
import { config, draw, ink, optimizerColor, stepAxis } from './chart.js';
import type { TrialResult } from './trial.js';

interface Point {
  label: string;
  /** Keeps the lines of different seeds apart. */
  seed: number;
  curve: 'validation' | 'training, smoothed';
  step: number;
  loss: number;
}

/** @param unigramEntropy the loss that is drawn as a line */
export async function drawLossCurves(
  results: readonly TrialResult[],
  steps: number,
  unigramEntropy: number,
): Promise<string> {
  const points = results.flatMap(pointsOf).filter((point) => Number.isFinite(point.loss));
  return draw(lossChart(results, points, steps, unigramEntropy), 'Loss of each optimizer by step');
}

function pointsOf({ trial: { label, seed }, history }: TrialResult): Point[] {
  let [average, weight] = [0, 0];
  return history.flatMap(({ step, loss, evaluation }) => {
    average = 0.8 * average + 0.2 * loss;
    weight = 0.8 * weight + 0.2;
    const training: Point = { label, seed, curve: 'training, smoothed', step, loss: average / weight };
    return evaluation === undefined
      ? [training]
      : [training, { label, seed, curve: 'validation', step, loss: evaluation }];
  });
}

function lossChart(
  results: readonly TrialResult[],
  points: Point[],
  steps: number,
  unigramEntropy: number,
): TopLevelSpec {
  const validation = points.filter((point) => point.curve === 'validation').map((point) => point.loss);
  const top = Math.max(unigramEntropy, ...validation);
  const bottom = Math.min(unigramEntropy, ...points.map((point) => point.loss));
  const margin = 0.04 * (top - bottom) || 0.1;
  return {
    width: 700,
    height: 360,
    padding: 6,
    data: { values: points },
    encoding: {
      x: stepAxis(steps),
      y: {
        type: 'quantitative',
        scale: { domain: [bottom - margin, top + margin], nice: false, zero: false },
        title: 'loss (nats per byte)',
      },
    },
    layer: [
      {
        mark: { type: 'line', clip: true },
        encoding: {
          y: { field: 'loss' },
          detail: { field: 'seed' },
          color: optimizerColor(results, points),
          strokeDash: {
            field: 'curve',
            scale: {
              domain: ['validation', 'training, smoothed'],
              range: [
                [1, 0],
                [2, 3],
              ],
            },
            legend: { title: 'curve', symbolStrokeColor: ink, symbolSize: 250, labelLimit: 200 },
          },
          strokeWidth: { condition: { test: 'datum.curve === "validation"', value: 2.5 }, value: 1.2 },
        },
      },
      {
        transform: [{ filter: 'datum.curve === "validation"' }],
        mark: { type: 'point', filled: true, size: 28, opacity: 1 },
        encoding: { y: { field: 'loss' }, color: { field: 'label' } },
      },
      {
        data: { values: [{ entropy: unigramEntropy, step: steps }] },
        mark: { type: 'rule', strokeDash: [6, 4], color: ink, opacity: 0.6 },
        encoding: { y: { field: 'entropy' }, x: { value: 0 }, x2: { value: 'width' } },
      },
      {
        data: { values: [{ entropy: unigramEntropy, step: steps }] },
        mark: {
          type: 'text',
          align: 'right',
          baseline: 'top',
          dy: 5,
          color: ink,
          text: `unigram entropy ${unigramEntropy.toFixed(2)}`,
        },
        encoding: { y: { field: 'entropy' } },
      },
    ],
    config,
  };
}
