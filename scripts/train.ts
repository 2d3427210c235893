import { mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { type DeviceInfo, devices, resolveDevice } from '../lib/devices.js';
import { RootError } from '../lib/index.js';
import { formatTable } from './common/tables.js';
import { type Corpus, DataError, loadCorpus, validationBatches } from './train/data.js';
import { Gpt } from './train/model.js';
import { learningRates } from './train/optimizers.js';
import { type Options, parseOptions, UsageError } from './train/options.js';
import { decode, writeReport } from './train/report.js';
import { readTrials, writeTrials } from './train/resume.js';
import { summarize, tableCells } from './train/summary.js';
import { runTrial, type Setup, type Trial, type TrialResult } from './train/trial.js';

const shape = { context: 64, width: 128, heads: 4, layers: 2 };

async function main(): Promise<void> {
  const options = parseOptions(process.argv.slice(2));
  if (options === undefined) return;
  const device = resolveDevice(options.device);
  const corpus = loadCorpus(options.data, shape.context);
  const model = await Gpt.create({ ...shape, vocabulary: corpus.vocabulary.length });
  try {
    const setup: Setup = {
      options,
      corpus,
      model,
      validation: validationBatches(corpus.validation, 16, shape.context, 8),
      prompt: firstLine(corpus),
      folder: options.resume ?? makeFolder(options.out),
      signal: stopOnInterrupt(),
    };
    await runTrials(setup, describeRun(setup, device));
  } finally {
    model.dispose();
  }
}

async function runTrials(setup: Setup, config: ReturnType<typeof describeRun>): Promise<void> {
  const { options, corpus, folder, signal } = setup;
  if (options.resume === undefined) {
    const recorded = { ...config, vocabulary: [...corpus.vocabulary] };
    writeFileSync(path.join(folder, 'config.json'), `${JSON.stringify(recorded, null, 2)}\n`);
  }
  console.log(
    `${config.text}, ${corpus.vocabulary.length} different bytes\n${config.parameters} parameters, ${config.device}\n`,
  );
  const results: TrialResult[] = [];
  const record = async (state: 'running' | 'stopped') => {
    writeTrials(folder, results);
    await writeReport(results, setup, config, { state });
  };
  try {
    const former = readTrials(folder);
    for (const trial of planTrials(options)) {
      if (signal.aborted) break;
      const result = former(trial);
      results.push(result);
      if (result.sample !== undefined) continue;
      await runTrial(result, setup, () => record(signal.aborted ? 'stopped' : 'running'));
      writeTrials(folder, results);
    }
    await writeReport(results, setup, config, { state: signal.aborted ? 'stopped' : 'ended' });
  } catch (error) {
    // Where the report fails too, the first error is the one to report.
    await writeReport(results, setup, config, { state: 'failed', error }).catch(() => undefined);
    printTable(results.filter(({ sample }) => sample !== undefined));
    throw error;
  }
  printResults(results, setup);
  if (!signal.aborted) return;
  console.log(`To go on: npm run train -- --resume ${folder}`);
  process.exitCode = 130;
}

/** Orders the trials seed by seed, so that a run that is stopped has compared the seeds that it finished. */
function planTrials({ optimizers, lrs, seeds }: Options): Trial[] {
  return seeds.flatMap((seed) =>
    optimizers.flatMap((optimizer) =>
      (lrs ?? [learningRates[optimizer]]).map((lr) => ({
        optimizer,
        lr,
        seed,
        label: lrs === undefined ? optimizer : `${optimizer} ${lr}`,
      })),
    ),
  );
}

/** Returns 32 tokens of held-out text, from the beginning of a line where there is one. */
function firstLine({ validation, vocabulary }: Corpus): Uint8Array {
  const start = Math.min(validation.indexOf(vocabulary.indexOf(10)) + 1, validation.length - 32);
  return validation.subarray(start, start + 32);
}

function makeFolder(out: string | undefined): string {
  const folder = out ?? path.join('runs', new Date().toISOString().slice(0, 19).replace(/:/g, '-'));
  try {
    mkdirSync(folder, { recursive: true });
    if (readdirSync(folder).length === 0) return folder;
  } catch (cause) {
    throw new DataError(`Cannot write to ${folder}: ${(cause as Error).message}`, { cause });
  }
  throw new UsageError(`Expected --out to be a new or empty folder, got "${folder}"`);
}

/**
 * Handles Ctrl-C. The first one ends training after the current step. Another more than a second later ends the
 * process.
 */
function stopOnInterrupt(): AbortSignal {
  const controller = new AbortController();
  let first: number | undefined;
  process.on('SIGINT', () => {
    controller.abort();
    first ??= performance.now();
    // The programs that started this one pass on the signal that the terminal has already sent to it.
    if (performance.now() - first > 1000) process.exit(130);
  });
  return controller.signal;
}

function describeRun({ options, corpus, model }: Setup, device: DeviceInfo) {
  return {
    ...options,
    lrs: options.lrs ?? Object.fromEntries(options.optimizers.map((name) => [name, learningRates[name]])),
    text: corpus.description,
    unigramEntropy: corpus.unigramEntropy,
    model: model.shape,
    parameters: model.parameters.reduce((sum, { size }) => sum + size, 0),
    device: describeDevice(device),
    cores: os.availableParallelism(),
    node: process.version,
    date: new Date().toISOString(),
  };
}

/** Names the devices. The model computes on the CPU, the optimizers compute there or on a CUDA device. */
function describeDevice({ name, description }: DeviceInfo): string {
  const { cpu } = devices();
  return name === 'cpu' ? cpu.description : `${cpu.description}, optimizers on ${name}: ${description}`;
}

function printTable(results: readonly TrialResult[]): void {
  const rows = summarize(results);
  if (rows.length > 0) console.log(`\n${formatTable(tableCells(rows), (column) => column === 0)}`);
}

function printResults(results: readonly TrialResult[], { corpus, prompt, folder }: Setup): void {
  printTable(results);
  console.log(`\nLosses are in nats per byte; byte frequencies alone give ${corpus.unigramEntropy.toFixed(3)}.`);
  for (const { trial, sample } of results) {
    if (sample === undefined || trial.seed !== results[0]!.trial.seed) continue;
    console.log(`\n--- ${trial.label} ---\n${decode(prompt, corpus.vocabulary)}${decode(sample, corpus.vocabulary)}`);
  }
  console.log(`\nReport: ${path.join(folder, 'report.html')}`);
}

main().catch((error: unknown) => {
  const expected = error instanceof UsageError || error instanceof DataError || error instanceof RootError;
  const fromSystem = error instanceof Error && 'syscall' in error;
  console.error(expected || fromSystem ? error.message : error);
  process.exitCode = error instanceof UsageError ? 2 : 1;
});
