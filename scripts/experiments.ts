import { readOptions, parseNames, parsePositive, runMain } from './common/command.js';
import { runOne } from './experiments/one.js';
import {
  defaultMethods,
  methodNames,
  type ModelName,
  modelNames,
  planRuns,
  type Spec,
  sweepSeed,
} from './experiments/plan.js';
import { readResults, Runner } from './experiments/runner.js';
import { readRates, sweep, writeRates } from './experiments/sweep.js';
import { markdownTables } from './experiments/table.js';
import { noiseKinds } from './train/noise.js';

const HELP = `Usage: npm run experiments -- <command> [options]

Compares optimizers on clean and noisy gradients. Each training is a process of its own and ends as one line of JSON in
the file of results. A command that was stopped goes on where it stopped.

  sweep            find the learning rate of each method on clean gradients, with seed ${sweepSeed}, which no table
                   reports. A method that has a rate keeps it
  run              train each method with its rate under each noise and with each seed
  table            print the results in Markdown

  --model <name>   ${modelNames.join(' or ')} (default gpt)
  --methods <list> some of ${methodNames.slice(0, 5).join(', ')},
                   ${methodNames.slice(5, 8).join(', ')},
                   ${methodNames.slice(8).join(', ')}
                   (default the rows of the model's table)
  --noises <list>  some of ${noiseKinds.join(', ')} (default all)
  --seeds <n>      seeds 1 to n (default 3)
  --steps <n>      steps of a training (default 200)
  --jobs <n>       trainings side by side (default 2)
  --out <file>     the file of results (default runs/experiments.jsonl)
  --rates <file>   the file of learning rates (default runs/experiments-rates.json)
  --help           print this`;

const commands = ['sweep', 'run', 'table', 'one'] as const;
const flags = ['model', 'methods', 'noises', 'seeds', 'steps', 'jobs', 'out', 'rates', 'spec'] as const;

async function main(): Promise<void> {
  const [command = '--help', ...rest] = process.argv.slice(2);
  const asksForHelp = command === '--help';
  const options = readOptions(HELP, flags, asksForHelp ? [command] : rest);
  if (options === undefined) return;
  const settings = readSettings(options);
  switch (parseNames(command, commands, 'the command')[0]!) {
    case 'sweep':
      await runSweep(settings);
      break;
    case 'run':
      await runTable(settings);
      break;
    case 'table':
      console.log(markdownTables(readResults(settings.out)));
      break;
    case 'one':
      // `run` and `sweep` start this command in processes of their own.
      console.log(JSON.stringify(await runOne(JSON.parse(options.spec ?? '') as Spec)));
      break;
  }
}

type Settings = ReturnType<typeof readSettings>;

function readSettings(options: Readonly<Partial<Record<(typeof flags)[number], string>>>) {
  const [model = 'gpt'] = parseNames(options.model ?? 'gpt', modelNames, '--model');
  return {
    model,
    methods:
      options.methods === undefined ? defaultMethods[model] : parseNames(options.methods, methodNames, '--methods'),
    noises: parseNames(options.noises ?? noiseKinds.join(','), noiseKinds, '--noises'),
    seeds: parsePositive(options.seeds ?? '3', '--seeds'),
    steps: parsePositive(options.steps ?? '200', '--steps'),
    jobs: parsePositive(options.jobs ?? '2', '--jobs'),
    out: options.out ?? 'runs/experiments.jsonl',
    rates: options.rates ?? 'runs/experiments-rates.json',
  };
}

async function runSweep({ model, methods, steps, jobs, out, rates }: Settings): Promise<void> {
  const runner = makeRunner(out, jobs);
  const found = ratesOf(model, steps, rates);
  const missing = methods.filter((method) => found[method] === undefined);
  await Promise.all(
    missing.map(async (method) => {
      const choice = await sweep({ model, method, steps }, (spec) => runner.run(spec));
      const all = readRates(rates);
      const chosen = { ...all[model]?.methods, [method]: choice };
      writeRates(rates, { ...all, [model]: { seed: sweepSeed, steps, methods: chosen } });
    }),
  );
  for (const method of methods) console.log(`${model} ${method}: ${readRates(rates)[model]!.methods[method]!.lr}`);
}

async function runTable({ model, methods, noises, seeds, steps, jobs, out, rates }: Settings): Promise<void> {
  const found = ratesOf(model, steps, rates);
  const rows = methods.map((method) => {
    const choice = found[method];
    if (choice === undefined) {
      throw new Error(`Expected a learning rate of ${method} for ${model} in ${rates}; the command sweep finds it`);
    }
    return { method, lr: choice.lr };
  });
  const results = await makeRunner(out, jobs).runAll(planRuns(model, rows, { noises, seeds, steps }));
  console.log(markdownTables(results));
}

/** Returns what a sweep of so many steps has found. Rates of another length would misstate what they are rates of. */
function ratesOf(model: ModelName, steps: number, file: string) {
  const found = readRates(file)[model];
  if (found !== undefined && found.steps !== steps) {
    throw new Error(`Expected --steps ${found.steps}, as in ${file}, or another file of --rates; got ${steps}`);
  }
  return found?.methods ?? {};
}

/** Makes a runner whose processes end with this one. */
function makeRunner(out: string, jobs: number): Runner {
  const runner = new Runner(out, jobs);
  for (const [signal, status] of [
    ['SIGINT', 130],
    ['SIGTERM', 143],
  ] as const) {
    process.once(signal, () => {
      runner.stop();
      process.exit(status);
    });
  }
  return runner;
}

runMain(main);
