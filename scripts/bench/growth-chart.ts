import type { TopLevelSpec } from 'vega-lite';
import type { CountPoint, SizePoint } from './measure/growth.js';

/**
 * Returns a chart of the time of one matrix by its size, beside a chart of the time of a step by the number of
 * matrices.
 */
export function growthChart(bySize: SizePoint[], byCount: CountPoint[]): TopLevelSpec {
  const mark = { type: 'line', point: { size: 18, filled: true }, strokeWidth: 1.5 } as const;
  const range = ['#c2410c', '#0067b1'];
  return {
    background: 'white',
    padding: 8,
    hconcat: [
      {
        width: 400,
        height: 260,
        title: 'One matrix, one thread',
        data: { values: bySize },
        mark,
        encoding: {
          x: {
            field: 'size',
            type: 'quantitative',
            title: 'shorter side',
            scale: { type: 'log', nice: false },
            axis: { values: [64, 128, 256, 512, 1024] },
          },
          y: {
            field: 'picosecondsEach',
            type: 'quantitative',
            title: 'ps per multiply-add of the plain form',
            scale: { zero: true },
          },
          color: { field: 'shape', type: 'nominal', scale: { range }, legend: { title: 'shape' } },
        },
      },
      {
        width: 300,
        height: 260,
        title: 'A step on matrices of 256 × 256',
        data: { values: byCount },
        mark,
        encoding: {
          x: {
            field: 'matrices',
            type: 'quantitative',
            scale: { type: 'log', base: 2 },
            axis: { values: [1, 2, 4, 8, 16, 32, 64] },
          },
          y: { field: 'milliseconds', type: 'quantitative', title: 'ms', scale: { type: 'log' } },
          color: { field: 'threads', type: 'nominal', scale: { range }, legend: { title: null } },
        },
      },
    ],
    resolve: { scale: { color: 'independent' } },
    config: { font: 'system-ui, sans-serif', view: { stroke: null }, axis: { gridOpacity: 0.4 } },
  };
}
