import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { PassThrough, Writable } from 'node:stream';
import { type StepMetrics, train } from '../../lib/index.js';
import { expectError } from '../support.js';
import { adamw, batches, isOpen, logistic, readLines } from './logistic.js';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'root-optimizer-train-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe('metrics', () => {
  test('are lines of JSON in a file, which is appended to and closed', async () => {
    const file = path.join(folder, 'metrics.jsonl');
    const model = logistic();
    const optimizer = adamw(model);
    const once = { model, optimizer, steps: 3, metrics: file, labels: { run: 'first' }, clipNorm: 10 };
    const evaluate = { every: 2, run: () => Promise.resolve(0.5) };
    const first = await train({ ...once, batches: batches(3), evaluate });
    expect(readLines(file)).toEqual(first.history.map((step) => ({ run: 'first', ...step })));
    await train({ ...once, batches: batches(3) });
    expect(readLines(file)).toHaveLength(6);
    expect(isOpen(file)).toBe(false);
  });

  test('are with the system step by step', async () => {
    const file = path.join(folder, 'live.jsonl');
    const model = logistic();
    const onStep = ({ step }: StepMetrics): void => expect(readLines(file)).toHaveLength(step);
    await train({ model, optimizer: adamw(model), batches: batches(3), steps: 3, metrics: file, onStep });
    expect.assertions(6);
  });

  test('go to a stream, which stays open', async () => {
    const stream = new PassThrough({ encoding: 'utf8' });
    const model = logistic();
    await train({ model, optimizer: adamw(model), batches: batches(2), steps: 2, metrics: stream });
    expect(stream.writable).toBe(true);
    expect(stream.listenerCount('error')).toBe(0);
    const lines = (stream.read() as string).trimEnd().split('\n');
    expect(lines.map((line) => (JSON.parse(line) as StepMetrics).step)).toEqual([1, 2]);
  });

  test('write null for a loss that is not a number', async () => {
    const file = path.join(folder, 'nan.jsonl');
    const model = { ...logistic(), lossAndGradients: () => NaN };
    await train({ model, optimizer: adamw(model), batches: batches(1), steps: 1, metrics: file });
    expect(readLines(file)[0]!.loss).toBeNull();
  });

  test('that cannot be opened end training before it starts', async () => {
    const model = logistic();
    const lossAndGradients = jest.fn();
    const metrics = path.join(folder, 'absent', 'metrics.jsonl');
    const run = () =>
      train({ model: { ...model, lossAndGradients }, optimizer: adamw(model), batches: batches(1), steps: 1, metrics });
    await expectError(
      run,
      'ERR_INVALID_ARGUMENT',
      /^Expected metrics to be a file or stream that can be written to, got ".*metrics\.jsonl": ENOENT/,
    );
    expect(lossAndGradients).not.toHaveBeenCalled();
  });

  const full = existsSync('/dev/full') ? test : test.skip;
  full('say that a disk is full', async () => {
    const model = logistic();
    const run = () => train({ model, optimizer: adamw(model), batches: batches(1), steps: 1, metrics: '/dev/full' });
    await expectError(run, 'ERR_INVALID_ARGUMENT', /got "\/dev\/full": ENOSPC: no space left on device/);
  });

  test('say that a stream broke', async () => {
    const stream = new Writable({ write: (_chunk, _encoding, done) => done(new Error('gone')) });
    const model = logistic();
    const run = () => train({ model, optimizer: adamw(model), batches: batches(1), steps: 1, metrics: stream });
    await expectError(run, 'ERR_INVALID_ARGUMENT', 'got a stream: gone');
  });
});

describe('progress', () => {
  async function progressOn(stream: PassThrough, interval?: number): Promise<string> {
    const model = logistic();
    const progress = { label: 'demo', stream, ...(interval === undefined ? {} : { interval }) };
    await train({ model, optimizer: adamw(model), batches: batches(5), steps: 5, progress });
    return (stream.read() as Buffer).toString();
  }

  test('is a line every so often where there is no terminal', async () => {
    const sparse = (await progressOn(new PassThrough())).trimEnd().split('\n');
    expect(sparse).toHaveLength(2);
    expect(sparse[0]).toMatch(/^demo: step 1 of 5, loss 0\.6931, lr 1\.0e-1, \d+ s left$/);
    expect(sparse[1]).toMatch(/^demo: step 5 of 5, loss 0\.\d{4}, lr 1\.0e-1, 0 s left$/);
    const dense = (await progressOn(new PassThrough(), 0)).trimEnd().split('\n');
    expect(dense).toHaveLength(5);
  });

  test('is a bar on a terminal', async () => {
    const stream = new PassThrough();
    const terminal = { isTTY: true, columns: 100, cursorTo: () => true, moveCursor: () => true, clearLine: () => true };
    const text = await progressOn(Object.assign(stream, terminal));
    expect(text).toContain('demo ');
    expect(text).toMatch(/5\/5 \| loss 0\.\d{4} \| lr 1\.0e-1 \| 0 s left/);
  });
});

test('a process that is killed leaves whole lines', async () => {
  const [script, metrics] = [path.join(folder, 'endless.ts'), path.join(folder, 'killed.jsonl')];
  const lib = path.join(__dirname, '..', '..', 'lib');
  writeFileSync(
    script,
    `import { AdamW, Parameter, train } from '${lib}/index.js';
     const w = new Parameter({ name: 'w', shape: [1] });
     const model = { parameters: [w], lossAndGradients: () => 1 };
     function* forever() { for (;;) yield 0; }
     const onStep = ({ step }) => { if (step === 20) console.log('on'); };
     const optimizer = new AdamW([w]);
     void train({ model, optimizer, batches: forever(), steps: 1e9, metrics: '${metrics}', onStep });`,
  );
  const child = spawn(process.execPath, ['--require', require.resolve('tsx/cjs'), script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  await once(child.stdout, 'data');
  child.kill('SIGKILL');
  await once(child, 'exit');
  expect(readLines(metrics).length).toBeGreaterThanOrEqual(20);
}, 30_000);
