import type { TopLevelSpec } from 'vega-lite';

/** Draws a chart of Vega-Lite as SVG. */
export async function renderChart(chart: TopLevelSpec): Promise<string> {
  // `require` cannot load these modules in all versions of Node.
  const [vega, { compile }] = await Promise.all([import('vega'), import('vega-lite')]);
  const view = new vega.View(vega.parse(compile(chart).spec), { renderer: 'none', logLevel: vega.Error });
  const svg = await view.toSVG();
  view.finalize();
  return svg;
}
