import { appendFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { loadCorpus, validationBatches } from '../../scripts/train/data.js';
import { Gpt } from '../../scripts/train/model.js';
import { parseOptions, UsageError } from '../../scripts/train/options.js';
import { readTrials, writeTrials } from '../../scripts/train/resume.js';
import { runTrial, type TrialResult } from '../../scripts/train/trial.js';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'root-optimizer-go-on-'));
  writeFileSync(
    path.join(folder, 'text.txt'),
    'The quick brown fox jumps over the lazy dog; a cow watches.\n'.repeat(60),
  );
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const context = 8;
const trial = { optimizer: 'root', lr: 0.02, seed: 3, label: 'root' } as const;

/** Trains in a folder, until the evaluation after a step, if one is given. */
async function run(name: string, noise: string, stopAfter?: number): Promise<TrialResult> {
  const own = path.join(folder, name);
  mkdirSync(own, { recursive: true });
  const text = path.join(folder, 'text.txt');
  const options = parseOptions(['--data', text, '--steps', '20', '--batch', '2', '--noise', noise, '--device', 'cpu'])!;
  const corpus = loadCorpus(text, context);
  const model = await Gpt.create({ context, width: 16, heads: 2, layers: 1, vocabulary: corpus.vocabulary.length });
  const controller = new AbortController();
  const result = readTrials(own)(trial);
  try {
    const validation = validationBatches(corpus.validation, 2, context, 1);
    const prompt = corpus.validation.subarray(0, context);
    const setup = { options, corpus, model, validation, prompt, folder: own, signal: controller.signal };
    await runTrial(result, setup, () => {
      writeTrials(own, [result]);
      if (result.history.at(-1)?.step === stopAfter) controller.abort();
      return Promise.resolve();
    });
    writeTrials(own, [result]);
  } finally {
    model.dispose();
  }
  return result;
}

test.each(['spikes', 'burst', 'labels'])(
  'a trial that goes on is the one that was never stopped, with %s',
  async (noise) => {
    const whole = await run(`${noise} whole`, noise);
    const first = await run(`${noise} parts`, noise, 6);
    expect(first.history.map(({ step }) => step)).toEqual([1, 2, 3, 4, 5, 6]);
    // A process that was killed leaves steps after its last checkpoint, and a part of a line.
    const metrics = path.join(folder, `${noise} parts`, 'metrics.jsonl');
    const [line] = readFileSync(metrics, 'utf8').split('\n');
    appendFileSync(metrics, `${JSON.stringify({ ...(JSON.parse(line!) as object), step: 7, loss: 99 })}\n`);
    appendFileSync(metrics, line!.slice(0, 25));
    const second = await run(`${noise} parts`, noise);
    const told = ({ history, orthogonality, sample }: TrialResult) => ({
      history: history.map(({ step, loss, lr, evaluation }) => ({ step, loss, lr, evaluation })),
      orthogonality,
      sample,
    });
    expect(told(second)).toEqual(told(whole));
    expect(second.history).toHaveLength(20);
    const file = (name: string) => readFileSync(path.join(folder, name, 'root-seed3.safetensors'));
    expect(file(`${noise} parts`).equals(file(`${noise} whole`))).toBe(true);
    expect(readTrials(path.join(folder, `${noise} parts`))(trial)).toMatchObject({ sample: whole.sample });
  },
);

test('a line that was cut off does not count, and a loss that was not finite is one', () => {
  const own = path.join(folder, 'cut');
  mkdirSync(own);
  const line = JSON.stringify({ optimizer: 'root', hiddenLr: 0.02, seed: 3, step: 1, loss: NaN });
  writeFileSync(path.join(own, 'metrics.jsonl'), `${line}\n${line.slice(0, 20)}`);
  expect(readTrials(own)(trial)).toEqual({ trial, history: [{ step: 1, loss: NaN }], orthogonality: [] });
  expect(readFileSync(path.join(own, 'metrics.jsonl'), 'utf8')).toBe(`${line}\n`);
});

test('--resume takes the options of the run, and no others', () => {
  const own = path.join(folder, 'options');
  mkdirSync(own);
  const first = parseOptions(['--noise', 'burst', '--seeds', '3', '--lr', '0.1'])!;
  writeFileSync(path.join(own, 'config.json'), JSON.stringify(first));
  expect(parseOptions(['--resume', own])).toEqual({ ...first, resume: own });
  expect(() => parseOptions(['--resume', own, '--steps', '5'])).toThrow(
    new UsageError('Expected --resume without other options, got --steps'),
  );
  expect(() => parseOptions(['--resume', path.join(folder, 'absent')])).toThrow(
    /^Expected --resume to be the folder of/,
  );
});
