import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { open, rename } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { Muon, Parameter } from '../../lib/index.js';
import { parsePositive, readOptions, runMain, writeFigures } from '../common/command.js';
import { median } from '../common/numbers.js';
import { gaussian, makeRandom } from '../common/random.js';
import { formatTable } from '../common/tables.js';

const HELP = `Usage: npx tsx scripts/bench/checkpoints.ts [options]

Saves and loads a checkpoint in turns with what the disk needs: writing as many bytes to a file, with the same fsync and
rename, and reading them once, in pieces of 4 MB. Files are read from the disk (dd takes them out of the system's cache
before) and from the cache. Prints medians, the memory that a save and a load take beside the state, and the longest
time that they keep the event loop from other work. Needs Linux.

  --millions <n>   elements of the parameters, half as many as the file has (default 100)
  --rounds <n>     rounds (default 5)
  --folder <path>  the folder of the files (default: the system's temporary folder)
  --json <file>    write the figures to this file
  --help           print this`;

interface Figures {
  seconds: number;
  /** The most memory that was resident beyond that before. */
  extraBytes: number;
  /** The longest delay of the event loop. */
  longestPause: number;
}

const piece = 4 << 20;

async function writePlainly(file: string, bytes: number): Promise<void> {
  const buffer = randomBytes(piece);
  const handle = await open(`${file}.tmp`, 'w');
  for (let done = 0; done < bytes; done += piece) await handle.write(buffer, 0, Math.min(piece, bytes - done));
  await handle.sync();
  await handle.close();
  await rename(`${file}.tmp`, file);
}

async function readPlainly(file: string): Promise<void> {
  const buffer = new Uint8Array(piece);
  const handle = await open(file, 'r');
  while ((await handle.read(buffer, 0, piece)).bytesRead > 0);
  await handle.close();
}

/** The arguments with which dd reads nothing, and has the system forget what it holds of the file. */
const forget = (file: string): string[] => [`if=${file}`, 'iflag=nocache', 'count=0'];

async function measure(run: () => Promise<unknown>): Promise<Figures> {
  const delay = monitorEventLoopDelay({ resolution: 1 });
  writeFileSync('/proc/self/clear_refs', '5'); // the peak of resident memory begins anew
  const before = resident('VmRSS');
  delay.enable();
  await new Promise((resolve) => setTimeout(resolve, 20));
  delay.reset();
  const start = performance.now();
  await run();
  const seconds = (performance.now() - start) / 1000;
  await new Promise((resolve) => setTimeout(resolve, 5)); // a pause at the very end counts
  delay.disable();
  return { seconds, extraBytes: resident('VmHWM') - before, longestPause: delay.max / 1e9 };
}

function resident(key: string): number {
  return 1024 * parseInt(readFileSync('/proc/self/status', 'utf8').split(`${key}:`)[1]!);
}

runMain(async () => {
  const options = readOptions(HELP, ['millions', 'rounds', 'folder', 'json']);
  if (options === undefined) return;
  const rounds = parsePositive(options.rounds ?? '5', '--rounds');
  const size = 1e6 * parsePositive(options.millions ?? '100', '--millions');
  const folder = mkdtempSync(path.join(options.folder ?? tmpdir(), 'checkpoints-'));
  try {
    const columns = 2000;
    const count = 20;
    const rows = Math.ceil(size / columns / count);
    const params = Array.from({ length: count }, (_, i) => new Parameter({ name: `w${i}`, shape: [rows, columns] }));
    for (const one of params) one.data.set(gaussian(one.size, makeRandom(1, one.name)));
    using optimizer = new Muon(params, { device: 'cpu' });
    const [file, plain] = [path.join(folder, 'run'), path.join(folder, 'plain')];
    await optimizer.save(file);
    await optimizer.load(file); // the memory of the state is mapped from now on
    const { size: bytes } = statSync(file);
    const runs: Record<string, () => Promise<unknown>> = {
      'plain write': () => writePlainly(plain, bytes),
      save: () => optimizer.save(file),
      'plain read': () => readPlainly(plain),
      load: () => optimizer.load(file),
      'plain read, cached': () => readPlainly(plain),
      'load, cached': () => optimizer.load(file),
    };
    const found = new Map<string, Figures[]>(Object.keys(runs).map((name) => [name, []]));
    for (let round = 0; round < rounds; round++) {
      await writePlainly(plain, bytes); // the first write after a while takes longer, whoever writes
      for (const [name, run] of Object.entries(runs)) {
        if (name === 'plain read') {
          for (const one of [file, plain]) execFileSync('dd', forget(one), { stdio: 'ignore' });
        }
        found.get(name)!.push(await measure(run));
      }
    }
    const table = [...found].map(([name, figures]) => ({
      name,
      seconds: median(figures.map((one) => one.seconds)),
      extraBytes: Math.max(...figures.map((one) => one.extraBytes)),
      longestPause: Math.max(...figures.map((one) => one.longestPause)),
    }));
    const seconds = (name: string) => table.find((one) => one.name === name)!.seconds;
    const ratios = {
      save: seconds('save') / seconds('plain write'),
      load: seconds('load') / seconds('plain read'),
      cachedLoad: seconds('load, cached') / seconds('plain read, cached'),
    };
    const lines = table.map(({ name, seconds, extraBytes, longestPause }) => [
      name,
      seconds.toFixed(2),
      (extraBytes / 1e6).toFixed(0),
      (1000 * longestPause).toFixed(1),
    ]);
    const head = ['', 'seconds', 'MB beside the state', 'longest pause, ms'];
    console.log(formatTable([head, ...lines], (column) => column === 0));
    const [ofSave, ofLoad, ofCachedLoad] = Object.values(ratios).map((one) => one.toFixed(2));
    console.log(
      `\nA file of ${(bytes / 1e9).toFixed(2)} GB. A save takes ${ofSave} of the plain write, a load ${ofLoad} of`,
    );
    console.log(`the plain read; ${ofCachedLoad} where the file is in the cache.`);
    writeFigures(options.json, { bytes, table, ratios });
  } finally {
    rmSync(folder, { recursive: true });
  }
});
