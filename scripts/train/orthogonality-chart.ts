import { config, decades, draw, ink, optimizerColor, stepAxis } from './chart.js';
import type { TrialResult } from './trial.js';

/** Draws the distance to the polar factor by step. Returns undefined where nothing was measured. */
export async function drawOrthogonality(results: readonly TrialResult[], steps: number): Promise<string | undefined> {
  const points = results.flatMap(({ trial: { label, seed }, orthogonality }) =>
    orthogonality.map(({ step, matrix, error }) => ({ label, seed, step, matrix, error })),
  );
  if (points.length === 0) return undefined;
  return draw(
    {
      width: 700,
      height: 200,
      padding: 6,
      data: { values: points },
      encoding: {
        x: stepAxis(steps),
        y: { field: 'error', type: 'quantitative', title: '‖X − UVᵀ‖ / √m', scale: { type: 'log' }, axis: decades },
        color: optimizerColor(results, points),
      },
      layer: [
        {
          mark: { type: 'line', strokeWidth: 2 },
          encoding: {
            detail: { field: 'seed' },
            strokeDash: {
              field: 'matrix',
              scale: {
                range: [
                  [1, 0],
                  [2, 3],
                ],
              },
              legend: { title: 'matrix', symbolStrokeColor: ink, symbolSize: 250, labelLimit: 200 },
            },
          },
        },
        { mark: { type: 'point', filled: true, size: 28, opacity: 1 } },
      ],
      config,
    },
    'Distance to the polar factor by step',
  );
}

/** Draws singular values before and after the iterations at a few steps of the first seed. */
export async function drawSpectra(results: readonly TrialResult[]): Promise<string | undefined> {
  const seed = results[0]?.trial.seed;
  const points = results.flatMap(({ trial: { label, seed: own }, orthogonality }) =>
    orthogonality.flatMap(({ step, spectra }) => {
      if (spectra === undefined || own !== seed) return [];
      return (['before', 'after'] as const).flatMap((when) =>
        spectra[when].map((value, i) => ({ label, step, when, place: i + 1, value: Math.max(value, 1e-5) })),
      );
    }),
  );
  if (points.length === 0) return undefined;
  return draw(
    {
      padding: 6,
      data: { values: points },
      facet: {
        column: {
          field: 'step',
          type: 'ordinal',
          title: null,
          header: { labelExpr: '"step " + datum.value', labelColor: ink, labelFontSize: 12 },
        },
      },
      spec: {
        width: 218,
        height: 200,
        mark: { type: 'line', strokeWidth: 2, clip: true },
        encoding: {
          x: { field: 'place', type: 'quantitative', title: 'rank', axis: { tickCount: 4 }, scale: { nice: false } },
          y: {
            field: 'value',
            type: 'quantitative',
            title: 'singular value',
            scale: { type: 'log', nice: false, domainMax: 2 },
            axis: decades,
          },
          color: optimizerColor(results, points),
          strokeDash: {
            field: 'when',
            scale: {
              domain: ['after', 'before'],
              range: [
                [1, 0],
                [2, 3],
              ],
            },
            legend: { title: 'iterations', symbolStrokeColor: ink, symbolSize: 250 },
          },
        },
      },
      config,
    },
    'Singular values before and after the iterations',
  );
}
