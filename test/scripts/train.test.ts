import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { resolveDevice } from '../../lib/devices.js';
import { devices, type StepMetrics } from '../../lib/index.js';

const root = path.join(__dirname, '..', '..');

jest.setTimeout(60_000);

let folder: string;
let text: string;
beforeAll(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'root-optimizer-script-'));
  text = path.join(folder, 'text.txt');
  writeFileSync(text, 'A <b>naïve</b> cat & the quick brown fox jump over the lazy dog; a cow watches.\n'.repeat(60));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function start(args: string[]) {
  return spawn(process.execPath, ['--import', 'tsx', 'scripts/train.ts', ...args], {
    cwd: root,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
}

async function run(...args: string[]): Promise<{ code: number | null; stdout: string; stderr: string }> {
  const child = start(args);
  let [stdout, stderr] = ['', ''];
  child.stdout.setEncoding('utf8').on('data', (chunk: string) => (stdout += chunk));
  child.stderr.setEncoding('utf8').on('data', (chunk: string) => (stderr += chunk));
  const [code] = (await once(child, 'close')) as [number | null];
  return { code, stdout, stderr };
}

/** Describes the device that `auto` chooses. */
function describeDevice(): string {
  const { cpu } = devices();
  const { name, description } = resolveDevice('auto');
  return name === 'cpu' ? cpu.description : `${cpu.description}, optimizers on ${name}: ${description}`;
}

function readMetrics(out: string): (StepMetrics & { optimizer: string; seed: number })[] {
  const lines = readFileSync(path.join(out, 'metrics.jsonl'), 'utf8').trimEnd().split('\n');
  return lines.map((line) => JSON.parse(line) as StepMetrics & { optimizer: string; seed: number });
}

test('a short run leaves a table, metrics, checkpoints and a report', async () => {
  const out = path.join(folder, 'short');
  const { code, stdout, stderr } = await run('--data', text, '--steps', '3', '--out', out);
  expect({ code, errors: stderr.split('\n').filter((line) => /error/i.test(line)) }).toEqual({ code: 0, errors: [] });

  expect(stdout).toMatch(/^optimizer +learning rate +validation loss +time a step +in the optimizer$/m);
  for (const name of ['root', 'muon', 'adamw']) {
    expect(stdout).toMatch(new RegExp(`^${name} +0\\.\\d+ +\\d\\.\\d{3} +\\d+ ms +\\d+\\.\\d %$`, 'm'));
    expect(stdout).toContain(`--- ${name} ---`);
  }
  expect(stdout).toMatch(/byte frequencies alone give \d\.\d{3}/);

  expect(readdirSync(out).sort()).toEqual([
    'adamw-seed1.safetensors',
    'config.json',
    'metrics.jsonl',
    'muon-seed1.safetensors',
    'report.html',
    'root-seed1.safetensors',
    'trials.json',
  ]);
  expect(JSON.parse(readFileSync(path.join(out, 'config.json'), 'utf8'))).toMatchObject({
    steps: 3,
    noise: 'none',
    seeds: [1],
    device: describeDevice(),
  });

  const metrics = readMetrics(out);
  expect(metrics.map(({ optimizer, step }) => [optimizer, step])).toEqual(
    ['root', 'muon', 'adamw'].flatMap((name) => [1, 2, 3].map((step) => [name, step])),
  );
  const first = metrics.filter(({ step }) => step === 1).map(({ loss }) => loss);
  expect(new Set(first).size).toBe(1);

  const report = readFileSync(path.join(out, 'report.html'), 'utf8');
  const charts = [
    'Loss of each optimizer by step',
    'Distance to the polar factor by step',
    'Singular values before and after the iterations',
  ];
  expect(Array.from(report.matchAll(/<svg [^>]*aria-label="([^"]*)"/g), ([, label]) => label)).toEqual(charts);
  for (const text of ['1.attention.out', '1.mlp.up', 'step 1', 'step 2', 'step 3']) {
    expect(report).toContain(`>${text}<`);
  }
  expect(report).toContain('loss (nats per byte)');
  expect(report).toContain('optimizer step');
  expect(report).toContain('training, smoothed');
  expect(report).toContain('prefers-color-scheme: dark');
  expect(report).toContain('var(--series-2)');
  // The samples begin with this prompt, which is held-out text.
  expect(report).toContain('A &#60;b&#62;naïve&#60;/b&#62; cat &#38; the');
  expect(report).not.toMatch(/<b>naïve|<script|<link|<img|@import|url\((?!#)/);
  expect(report.replace(/xmlns(:\w+)?="[^"]*"/g, '')).not.toMatch(/https?:|\/\/\w/);
  expect(report.length).toBeLessThan(100_000);
});

test('Ctrl-C ends training and still writes what there is', async () => {
  const out = path.join(folder, 'stopped');
  const child = start(['--data', text, '--steps', '100000', '--optimizers', 'muon', '--out', out]);
  await once(child.stderr, 'data');
  child.kill('SIGINT');
  const [code] = (await once(child, 'close')) as [number | null];
  expect(code).toBe(130);
  expect(readMetrics(out).length).toBeGreaterThan(0);
  expect(existsSync(path.join(out, 'muon-seed1.safetensors'))).toBe(true);
  expect(readFileSync(path.join(out, 'report.html'), 'utf8')).toContain('Stopped before its end.');
});

test('a run that fails says so in its report and shows what has ended', async () => {
  const out = path.join(folder, 'failed <i>');
  const child = start(['--data', text, '--steps', '3', '--optimizers', 'adamw,muon', '--out', out]);
  let [stdout, stderr] = ['', ''];
  child.stdout.setEncoding('utf8').on('data', (chunk: string) => (stdout += chunk));
  child.stderr.setEncoding('utf8').on('data', (chunk: string) => (stderr += chunk));
  await once(child.stderr, 'data');
  mkdirSync(path.join(out, 'muon-seed1.safetensors'));
  const [code] = (await once(child, 'close')) as [number | null];
  expect(code).toBe(1);
  expect(stdout).toMatch(/^adamw +0\.004 /m);
  expect(stdout).not.toMatch(/^muon /m);
  expect(stderr).toContain(`${out}/muon-seed1.safetensors`);
  const report = readFileSync(path.join(out, 'report.html'), 'utf8');
  expect(report).toMatch(/<p>Failed: .*failed &#60;i&#62;\/muon-seed1/);
  expect(report).not.toContain('<i>');
});

describe('text that cannot be used is told in one line', () => {
  test.each([
    ['absent', () => path.join(folder, 'absent'), /^Cannot read the text: ENOENT: no such file or directory/],
    ['empty', () => write('empty.txt', ''), /^Expected text in .*empty\.txt, got nothing$/],
    ['an empty folder', () => makeFolder('hollow'), /^Expected text in .*hollow, got nothing$/],
    [
      'short',
      () => write('short.txt', 'short'),
      /^Expected the last tenth of the text in .*short\.txt, which is held out, to be more than 64 bytes, got 0$/,
    ],
    ['one letter', () => write('one.txt', 'a'.repeat(1000)), /^Expected different bytes in .*one\.txt, got only one$/],
  ])('%s', async (_, make, message) => {
    const { code, stdout, stderr } = await run('--data', make(), '--out', path.join(folder, 'none'));
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
    expect(stderr.trimEnd()).toMatch(message);
    expect(existsSync(path.join(folder, 'none'))).toBe(false);
  });

  function write(name: string, content: string): string {
    writeFileSync(path.join(folder, name), content);
    return path.join(folder, name);
  }

  function makeFolder(name: string): string {
    mkdirSync(path.join(folder, name));
    return path.join(folder, name);
  }
});

describe('the command line', () => {
  test('--help', async () => {
    const { code, stdout, stderr } = await run('--help');
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    for (const flag of [
      'steps',
      'optimizers',
      'noise',
      'data',
      'seed',
      'seeds',
      'device',
      'out',
      'lr',
      'batch',
      'threads',
      'coefficients',
      'threshold',
      'gradient-threshold',
      'growth',
      'normalize',
      'repeat',
      'precision',
    ]) {
      expect(stdout).toContain(`--${flag} `);
    }
  });

  test.each([
    [['--step', '3'], "Unknown option '--step'; --help lists the options"],
    [['--optimizers', 'root,sgd'], 'Expected --optimizers to be one of root, muon, adamw, got "sgd"'],
    [['--out', root], `Expected --out to be a new or empty folder, got "${root}"`],
  ])('%p is told in one line', async (args, message) => {
    const { code, stdout, stderr } = await run(...args);
    expect({ code, stdout, stderr: stderr.trimEnd() }).toEqual({ code: 2, stdout: '', stderr: message });
  });

  test('a device that is not there is told in one line', async () => {
    const out = path.join(folder, 'deviceless');
    const { code, stdout, stderr } = await run('--data', text, '--device', 'cuda:99', '--out', out);
    const { reason, devices: found } = devices().cuda;
    const there = `there ${found.length === 1 ? 'is' : 'are'} ${found.map(({ name }) => name).join(', ')}`;
    const message = `Expected device "cuda:99" to be available: ${reason ?? there}\n`;
    expect({ code, stdout, stderr }).toEqual({ code: 1, stdout: '', stderr: message });
    expect(existsSync(out)).toBe(false);
  });
});
