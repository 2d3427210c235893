import { writeFileSync } from 'node:fs';
import { readOptions, runMain, writeFigures } from '../common/command.js';
import { renderChart } from '../common/svg.js';
import { growthChart } from './growth-chart.js';
import { measureGrowth } from './measure/growth.js';

const HELP = `Usage: npm run bench:growth -- [options]

Measures how the time grows with the work. One chart shows picoseconds per multiply-add of the plain iteration against
the size of a matrix, at odd sizes and powers of two as well. The other shows the time of a step against the number of
matrices. Everything takes turns in five rounds. Also prints how odd sizes compare with the multiple of 16 beside them.

  --out <file>   write the charts to this file as SVG (default growth.svg)
  --json <file>  write the figures to this file
  --help         print this`;

runMain(async () => {
  const options = readOptions(HELP, ['out', 'json']);
  if (options === undefined) return;
  const { bySize, byCount } = measureGrowth();
  for (const { size, shape, picosecondsEach, neighbour } of bySize) {
    const beside = neighbour === undefined ? '' : `, ${neighbour.ratio.toFixed(2)} of ${neighbour.size}`;
    console.log(`${String(size).padStart(5)}  ${shape}  ${picosecondsEach.toFixed(2)} ps${beside}`);
  }
  for (const { matrices, threads, milliseconds } of byCount) {
    console.log(`${String(matrices).padStart(5)} matrices  ${threads}  ${milliseconds.toFixed(2)} ms`);
  }
  writeFigures(options.json, { bySize, byCount });
  writeFileSync(options.out ?? 'growth.svg', `${await renderChart(growthChart(bySize, byCount))}\n`);
});
