import { deviation, mean } from '../common/numbers.js';
import { markdownHead, markdownRow } from '../common/tables.js';
import { type NoiseKind, noiseKinds } from '../train/noise.js';
import { methodNames, methods, type ModelName, modelNames, type Result, sweepSeed } from './plan.js';

/** Returns the tables of all models and lengths in Markdown: the means of the seeds ± their standard deviation. */
export function markdownTables(results: readonly Result[]): string {
  const reported = results.filter(({ seed }) => seed !== sweepSeed);
  const lengths = [...new Set(reported.map(({ steps }) => steps))].sort((a, b) => a - b);
  const tables = modelNames.flatMap((model) =>
    lengths.flatMap((steps) =>
      tablesOf(
        model,
        steps,
        reported.filter((one) => one.model === model && one.steps === steps),
      ),
    ),
  );
  return tables.join('\n\n');
}

function tablesOf(model: ModelName, steps: number, results: readonly Result[]): string[] {
  if (results.length === 0) return [];
  const title = (what: string): string => `${model}, ${steps} steps: ${what}`;
  const losses = markdownTable(results, ({ loss }) => loss, 3, Math.min);
  const tables = [`${title('validation loss in nats')}\n\n${losses}`];
  if (results.every(({ accuracy }) => accuracy === null)) return tables;
  const percent = ({ accuracy }: Result): number | null => (accuracy === null ? null : 100 * accuracy);
  return [...tables, `${title('validation accuracy in %')}\n\n${markdownTable(results, percent, 2, Math.max)}`];
}

/** @param better returns the better one of two means. The best mean of each column is bold. */
function markdownTable(
  results: readonly Result[],
  value: (result: Result) => number | null,
  digits: number,
  better: (a: number, b: number) => number,
): string {
  const noises = noiseKinds.filter((noise) => results.some((one) => one.noise === noise));
  const cell = (noise: NoiseKind, own: readonly Result[]) =>
    own.filter((one) => one.noise === noise).map((one) => value(one));
  const rows = methodNames.flatMap((method) => {
    const ofMethod = results.filter((one) => one.method === method);
    return [...new Set(ofMethod.map(({ lr }) => lr))]
      .sort((a, b) => a - b)
      .map((lr) => {
        const own = ofMethod.filter((one) => one.lr === lr);
        return { label: methods[method].label, lr, cells: noises.map((noise) => cell(noise, own)) };
      });
  });
  const bests = noises.map((_, column) =>
    rows.map(({ cells }) => meanOf(cells[column]!)).reduce((a, b) => (a === null ? b : b === null ? a : better(a, b))),
  );
  const heads = noises.map((noise) => (noise === 'none' ? 'clean' : noise));
  const most = Math.max(...rows.flatMap(({ cells }) => cells.map((values) => values.length)));
  return [
    markdownHead(['optimizer', 'learning rate', ...heads]),
    ...rows.map(({ label, lr, cells }) =>
      markdownRow([
        label,
        String(lr),
        ...cells.map((values, column) => formatCell(values, { digits, best: bests[column]!, most })),
      ]),
    ),
  ].join('\n');
}

/** Returns null where a value is missing, or there is none. */
function meanOf(values: readonly (number | null)[]): number | null {
  const known = values.filter((value) => value !== null);
  return known.length === 0 || known.length < values.length ? null : mean(known);
}

/** @param most the number of seeds of a full cell. A cell with fewer says how many it has. */
function formatCell(
  values: readonly (number | null)[],
  { digits, best, most }: { digits: number; best: number | null; most: number },
): string {
  if (values.length === 0) return '–';
  const known = values.filter((value) => value !== null);
  if (known.length < values.length) return `not finite (${values.length - known.length} of ${values.length})`;
  const centre = mean(known);
  const text = centre.toFixed(digits);
  const spread = known.length > 1 ? ` ± ${deviation(known).toFixed(digits)}` : '';
  const count = known.length < most ? ` (${known.length} of ${most})` : '';
  return `${centre === best ? `**${text}**` : text}${spread}${count}`;
}
