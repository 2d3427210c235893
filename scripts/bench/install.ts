import { execFileSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { readOptions, runMain, writeFigures } from '../common/command.js';
import { median } from '../common/numbers.js';

const HELP = `Usage: npx tsx scripts/bench/install.ts [options]

Measures what a user waits for, on the tarballs that node scripts/release.mjs has left in release/: size and time
of an install into an empty project, and in new processes the import, the first use, the first step of a common shape,
and an optimizer of 40 shapes that are in no table. Medians of five.

  --json <file>  write the figures to this file
  --help         print this`;

const release = path.join(__dirname, '..', '..', 'release');

/** Prints the milliseconds that each part took in one process. */
const program = `
  const { monitorEventLoopDelay } = require('node:perf_hooks');
  let last = performance.now();
  const lap = () => { const now = performance.now(); const took = now - last; last = now; return took; };
  const { Parameter, Root, devices } = require('root-optimizer');
  const imported = lap();
  devices();
  const loaded = lap();
  (async () => {
    const weight = new Parameter({ name: 'w', shape: [256, 1024] });
    weight.grad.forEach((_, i) => (weight.grad[i] = Math.sin(i * i)));
    lap();
    await new Root([weight]).step();
    const firstStep = lap();
    const delay = monitorEventLoopDelay({ resolution: 1 });
    delay.enable();
    await new Promise((resolve) => setTimeout(resolve, 20));
    delay.reset();
    const shapes = Array.from({ length: 40 }, (_, i) => [37 + i, 91 + 2 * i]);
    const odd = shapes.map((shape, i) => new Parameter({ name: 'w' + i, shape }));
    lap();
    const optimizer = new Root(odd);
    const made = lap();
    await optimizer.step();
    const fitted = lap();
    console.log(JSON.stringify({ imported, loaded, firstStep, made, fitted, longestBlock: delay.max / 1e6 }));
  })();
`;

type Times = Record<'imported' | 'loaded' | 'firstStep' | 'made' | 'fitted' | 'longestBlock', number>;

function bytesUnder(folder: string): number {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((file) => file.isFile())
    .reduce((sum, file) => sum + statSync(path.join(file.parentPath, file.name)).size, 0);
}

runMain(() => {
  const options = readOptions(HELP, ['json']);
  if (options === undefined) return;
  const own = new RegExp(`^root-optimizer-(${process.platform}-${process.arch}-)?\\d.*\\.tgz$`);
  const tarballs = readdirSync(release).filter((file) => own.test(file));
  const project = mkdtempSync(path.join(tmpdir(), 'root-optimizer-'));
  try {
    writeFileSync(path.join(project, 'package.json'), '{ "private": true }');
    const started = performance.now();
    const args = ['install', '--omit=optional', '--no-audit', '--no-fund'];
    execFileSync('npm', [...args, ...tarballs.map((file) => path.join(release, file))], { cwd: project });
    const installSeconds = (performance.now() - started) / 1000;
    const modules = path.join(project, 'node_modules');
    const addonBytes = bytesUnder(path.join(modules, '@root-optimizer'));
    const otherBytes = bytesUnder(modules) - addonBytes;
    console.log(`install     ${installSeconds.toFixed(1)} s`);
    console.log(`            ${otherBytes} bytes, and ${addonBytes} of the addon's package`);
    const runs = Array.from({ length: 5 }, () => {
      const env = { ...process.env, ROOT_OPTIMIZER_ADDON: '' };
      return JSON.parse(
        execFileSync(process.execPath, ['-e', program], { cwd: project, env, encoding: 'utf8' }),
      ) as Times;
    });
    const times = (Object.keys(runs[0]!) as (keyof Times)[]).map((key) => [key, median(runs.map((run) => run[key]))]);
    for (const [key, time] of times) console.log(`${String(key).padEnd(12)}${(time as number).toFixed(1)} ms`);
    writeFigures(options.json, { installSeconds, addonBytes, otherBytes, ...(Object.fromEntries(times) as Times) });
  } finally {
    rmSync(project, { recursive: true });
  }
});
