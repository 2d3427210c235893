import type { TopLevelSpec } from 'vega-lite';
import { renderChart } from '../common/svg.js';
import type { TrialResult } from './trial.js';

/** The colours of the series, in turn. The stylesheet defines them for light and for dark pages. */
const seriesColors = Array.from({ length: 8 }, (_, i) => `var(--series-${i})`);

export const ink = 'currentColor';

/** The configuration of all charts. Colours are those of the page. */
export const config = {
  background: 'transparent',
  font: 'system-ui, sans-serif',
  view: { stroke: null },
  axis: {
    labelColor: ink,
    titleColor: ink,
    labelFontSize: 12,
    titleFontSize: 13,
    titleFontWeight: 'normal',
    gridColor: ink,
    gridOpacity: 0.12,
    domainColor: ink,
    domainOpacity: 0.4,
    tickColor: ink,
    tickOpacity: 0.4,
  },
  legend: { labelColor: ink, titleColor: ink, labelFontSize: 12, titleFontSize: 12, titleFontWeight: 'normal' },
  text: { fontSize: 12 },
} as const;

/** @returns SVG */
export async function draw(chart: TopLevelSpec, label: string): Promise<string> {
  const svg = await renderChart(chart);
  return svg.replace('<svg ', `<svg role="img" aria-label="${label}" `);
}

/** An axis with lines at the powers of ten only. */
export const decades = { values: [1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1], format: '~g' };

export function stepAxis(steps: number) {
  return {
    field: 'step',
    type: 'quantitative',
    title: 'optimizer step',
    axis: { format: 'd', tickMinStep: 1 },
    scale: { domain: [0, steps] as number[], nice: false },
  } as const;
}

/** Gives an optimizer the same colour in every chart. A chart's legend names the optimizers that have points in it. */
export function optimizerColor(results: readonly TrialResult[], points: readonly { label: string }[]) {
  const all = [...new Set(results.map(({ trial }) => trial.label))];
  const labels = all.filter((label) => points.some((point) => point.label === label));
  return {
    field: 'label',
    scale: { domain: labels, range: labels.map((label) => seriesColors[all.indexOf(label) % seriesColors.length]!) },
    legend: { title: 'optimizer', symbolStrokeWidth: 3, symbolType: 'stroke', symbolSize: 250 },
  } as const;
}
