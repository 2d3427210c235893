import { readFileSync } from 'node:fs';
import { devices, type Precision } from '../../lib/index.js';
import {
  parseNames,
  parsePositive,
  parseShapes,
  parseThreads,
  readOptions,
  runMain,
  SHAPES,
  writeFigures,
} from '../common/command.js';
import { percent } from '../common/numbers.js';
import { formatTable } from '../common/tables.js';
import { type Measured, measureSet, type Row, type Work } from './measure/cpu.js';

const sets = ['amx', 'avx512bf16', 'avx512', 'avx2', 'neon', 'baseline'] as const;

const HELP = `Usage: npm run bench -- [options]

Measures, for each shape, the median times of orthogonalising a matrix and of whole steps on a parameter of
that shape. The tasks of a shape, on all numbers of threads, take turns in rounds.

  --shapes <list>     rows x columns (default ${SHAPES})
  --threads <list>    numbers of CPU threads (default 1 and the physical cores)
  --sets <list>       instruction sets out of ${sets.join(', ')}; "all" for those that
                      this processor runs (default: the widest)
  --precision <list>  one or more of float32, bfloat16, bfloat16x3, where a set multiplies them (default float32)
  --time <ms>         milliseconds to measure a task for (default 1000)
  --json <file>       write the figures to a file as well
  --compare <file>    print ratios to the figures of such a file
  --help              print this

  effective  GFLOP/s by the operations of five plain iterations, 5·(4·m²·n + 2·m³) with m ≤ n, however few are done
  executed   GFLOP/s by the operations that are done, in the form that the addon chose; symmetric products count half
  peak       executed over what that many cores reach in registers alone, which is measured first; for bfloat16's Gram
             form, which multiplies squares in float32: the time of each part at its own peak, over the time taken
  step       time of a step of ROOT as its paper has it: without the gradient's threshold, without normalised rows
  products   time of the products of a ROOT step, timed one by one within it; "over" is the time of the step over
             theirs, the median of all steps
  speedup    speed of the step over that on the number of threads named first; median of the ratios of all rounds
  quantile   share of a step that the threshold takes (against Muon's step); median of all rounds
  gradient   what the threshold of the gradient, ROOT's default, adds to a step; median of all rounds
  rows       what the normalisation of rows adds to a step; median of all rounds
  memory     state and scratch memory after a step, in matrices of that shape`;

interface Report extends Omit<Measured, 'peakGflops'> {
  processor: string;
  node: string;
  /** Peaks by instruction set and precision. */
  peakGflops: Record<string, Measured['peakGflops']>;
}

runMain(() => {
  const names = ['shapes', 'threads', 'sets', 'precision', 'time', 'json', 'compare'] as const;
  const options = readOptions(HELP, names);
  if (options === undefined) return;
  const { cpu } = devices();
  const { precision = 'float32', compare } = options;
  const work: Work = {
    shapes: parseShapes(options.shapes ?? SHAPES),
    threads: parseThreads(options.threads),
    precisions: parseNames<Precision>(precision, ['float32', 'bfloat16', 'bfloat16x3'], '--precision'),
    time: parsePositive(options.time ?? '1000', '--time'),
  };
  const before = compare === undefined ? undefined : (JSON.parse(readFileSync(compare, 'utf8')) as Report);
  const { description: processor } = cpu;
  const report: Report = { processor, node: process.version, peakGflops: {}, rows: [], manySmall: [] };
  for (const set of chooseSets(options.sets, cpu.instructionSet)) {
    const measured = measureSet(set, work);
    if (measured === undefined) {
      console.log(`${set}: not on this processor\n`);
      continue;
    }
    report.rows.push(...measured.rows);
    report.manySmall.push(...measured.manySmall);
    report.peakGflops[set] = measured.peakGflops;
    print(set, measured, report, before);
  }
  writeFigures(options.json, report);
});

function chooseSets(asked: string | undefined, widest: string): readonly string[] {
  if (asked === undefined) return [widest];
  return asked === 'all' ? sets : parseNames(asked, sets, '--sets');
}

function print(set: string, { peakGflops, rows, manySmall }: Measured, report: Report, before?: Report): void {
  const peaks = Object.entries(peakGflops).map(([precision, peak]) => `${peak.toFixed(0)} GFLOP/s (${precision})`);
  console.log(`${report.processor}, ${set}, ${peaks.join(' and ')} peak a core, Node ${report.node}\n`);
  const head = [
    ...['precision', 'shape', 'threads', 'form', 'orthogonalise', 'effective', 'executed', 'peak', 'step', 'products'],
    ...['over', 'speedup', 'quantile', 'gradient', 'rows', 'memory'],
    ...(before === undefined ? [] : ['before/now', 'step']),
  ];
  const lines = rows.map((row) => [...cellsOf(row), ...(before === undefined ? [] : ratiosOf(row, before))]);
  console.log(formatTable([head, ...lines], (column) => column === 3));
  for (const { precision, threads, ratio } of manySmall) {
    const many = `64 matrices of 128x128, ${precision}, ${threads} threads`;
    console.log(`\n${many}: one step is ${ratio.toFixed(2)} times as fast as a step for each`);
  }
  console.log();
}

function cellsOf(row: Row): string[] {
  return [
    ...[row.precision, row.shape, String(row.threads), row.form, `${row.orthogonalizeMs.toFixed(2)} ms`],
    ...[row.effective.toFixed(0), row.executed.toFixed(0), percent(row.peakShare), `${row.stepMs.toFixed(2)} ms`],
    ...[`${row.productsMs.toFixed(2)} ms`, row.overProducts.toFixed(2), row.speedup.toFixed(2)],
    ...[row.quantileShare, row.gradientShare, row.rowsShare].map(percent),
    row.memoryMatrices.toFixed(1),
  ];
}

function ratiosOf(row: Row, before: Report): string[] {
  const same = (['set', 'precision', 'shape', 'threads'] as const).map((key) => [key, row[key]] as const);
  const old = before.rows.find((one) => same.every(([key, value]) => one[key] === value));
  if (old === undefined) return ['', ''];
  return [old.orthogonalizeMs / row.orthogonalizeMs, old.stepMs / row.stepMs].map((ratio) => ratio.toFixed(2));
}
