import { existsSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { calibrateCommand } from '../../lib/cli/calibrate.js';
import {
  type Calibration,
  type Coefficients,
  Muon,
  newtonSchulzCoefficients,
  orthogonalityError,
  orthogonalize,
  Parameter,
  Root,
} from '../../lib/index.js';
import { expectError, gaussian } from '../support.js';

let folder: string;
let file: string;
beforeAll(async () => {
  folder = mkdtempSync(path.join(tmpdir(), 'root-optimizer-'));
  file = path.join(folder, 'run.safetensors');
  using optimizer = new Root([{ params: model(), threshold: null }], { device: 'cpu' });
  await optimizer.step();
  await optimizer.save(file);
});
afterAll(() => {
  rmSync(folder, { recursive: true, force: true });
});

/** Gradients whose singular values fall by a factor of 100. */
function model(): Parameter[] {
  const shapes: [string, number[]][] = [
    ['qkv', [48, 24]],
    ['up', [24, 64]],
    ['down', [64, 24]],
    ['bias', [24]],
  ];
  return shapes.map(([name, shape], i) => {
    const parameter = new Parameter({ name, shape, ...(name === 'qkv' ? { split: 3 } : {}) });
    const columns = shape[1] ?? 1;
    const noise = gaussian(parameter.size, i + 1);
    parameter.grad.set(
      noise.map(
        (value, j) =>
          value *
          10 ** (-2 * (shape.length > 1 && columns <= 24 ? (j % columns) / columns : Math.floor(j / columns) / 24)),
      ),
    );
    return parameter;
  });
}

async function run(...args: string[]) {
  const lines: string[] = [];
  const errors: string[] = [];
  const log = jest.spyOn(console, 'log').mockImplementation((line: string) => void lines.push(line));
  const error = jest.spyOn(console, 'error').mockImplementation((line: string) => void errors.push(line));
  try {
    return { status: await calibrateCommand(args), stdout: lines.join('\n'), stderr: errors.join('\n') };
  } finally {
    log.mockRestore();
    error.mockRestore();
  }
}

async function calibrated(...args: string[]): Promise<Calibration> {
  const out = path.join(folder, 'coefficients.json');
  const { status } = await run(file, '--out', out, ...args);
  expect(status).toBe(0);
  return JSON.parse(readFileSync(out, 'utf8')) as Calibration;
}

test('prints errors that are those of the momentum, and writes what coefficients accepts', async () => {
  const html = path.join(folder, 'report.html');
  const out = path.join(folder, 'printed.json');
  const { status, stdout } = await run(file, '--per', 'parameter', '--out', out, '--html', html);
  expect(status).toBe(0);
  const coefficients = JSON.parse(readFileSync(out, 'utf8')) as Calibration;
  expect(coefficients.entries.map(({ names }) => names)).toEqual([['qkv'], ['up'], ['down']]);

  const [, best, , own] = /^up .*?(\d\.\d{5}) +(\d\.\d{5}) +(\d\.\d{5})/m.exec(stdout)!;
  expect(Number(own)).toBeLessThan(Number(best));
  const up = model().find(({ name }) => name === 'up')!;
  const triples = coefficients.entries[1]!.coefficients;
  expect(
    orthogonalityError(await orthogonalize(up.grad, up.shape, { coefficients: triples, device: 'cpu' }), up.shape)
      .polar,
  ).toBeCloseTo(Number(own), 3);

  const page = readFileSync(html, 'utf8');
  expect(page.match(/<svg/g)).toHaveLength(9);
  expect(page).not.toMatch(/NaN|undefined|(src|href)=/);
  expect(page).toContain('prefers-color-scheme: dark');
});

test('by shape, by parameter and by group, in an optimizer', async () => {
  for (const [per, count] of [
    ['shape', 2],
    ['parameter', 3],
    ['group', 1],
  ] as const) {
    const coefficients = await calibrated('--per', per, '--steps', '4');
    expect(coefficients).toMatchObject({ format: 'root-optimizer-coefficients', version: 1, steps: 4 });
    expect(coefficients.entries).toHaveLength(count);

    const [plain, fitted] = [model(), model()];
    using a = new Muon([{ params: fitted, coefficients }], { device: 'cpu', lr: 1 });
    expect(a.paramGroups[0]).toMatchObject({ steps: 4 });
    using b = new Muon(
      plain
        .map((one) => ({
          params: [one],
          ...(one.name === 'bias' ? {} : { coefficients: entryFor(coefficients, one) }),
          steps: 4,
        }))
        .filter(({ params }) => params[0]!.name !== 'bias'),
      { device: 'cpu', lr: 1 },
    );
    await a.step();
    await b.step();
    for (let i = 0; i < 3; i++) expect(fitted[i]!.data).toEqual(plain[i]!.data);
  }
});

function entryFor({ entries }: Calibration, { name, matrices }: Parameter): Coefficients {
  const { rows, columns } = matrices[0]!;
  return entries.find(
    (one) =>
      one.names?.includes(name) ??
      (one.shape![0] === Math.min(rows, columns) && one.shape![1] === Math.max(rows, columns)),
  )!.coefficients;
}

test('what a calibration does not hold is adaptive; it is taken and saved like other coefficients', async () => {
  const coefficients = await calibrated();
  expect(newtonSchulzCoefficients([64, 24], coefficients)).toEqual(newtonSchulzCoefficients([24, 64], coefficients));
  expect(newtonSchulzCoefficients([24, 64], coefficients)).not.toEqual(newtonSchulzCoefficients([24, 64], 'adaptive'));
  expect(newtonSchulzCoefficients([10, 20], coefficients)).toEqual(newtonSchulzCoefficients([10, 20], 'adaptive'));
  const saved = path.join(folder, 'calibrated.safetensors');
  using one = new Root(model(), { coefficients, device: 'cpu' });
  await one.save(saved);
  using same = new Root(model(), { coefficients, device: 'cpu' });
  await same.load(saved);
  using other = new Root(model(), { device: 'cpu' });
  await expectError(() => other.load(saved), 'ERR_CHECKPOINT', 'coefficients');
});

test('refuses calibrations that are none', async () => {
  const good = await calibrated();
  const cases: [object, string][] = [
    [{ version: 2 }, 'Expected coefficients.version to be 1, got 2'],
    [{ steps: 0 }, 'coefficients.steps to be an integer in [1, 100], got 0'],
    [{ entries: [] }, 'coefficients.entries to be a non-empty list'],
    [
      { entries: [{ coefficients: good.entries[0]!.coefficients }] },
      'coefficients.entries[0] to be an object with either names or shape',
    ],
    [{ entries: [{ shape: [3], coefficients: good.entries[0]!.coefficients }] }, '[rows, columns], got [3]'],
    [
      { entries: [{ names: [1], coefficients: good.entries[0]!.coefficients }] },
      'coefficients.entries[0].names to be a non-empty list of names',
    ],
    [
      { entries: [{ names: ['w'], coefficients: [[1, 2, 3]] }] },
      'coefficients.entries[0].coefficients to be a list of 5 triples',
    ],
    [
      { entries: [{ names: ['w'], coefficients: [1, 2, 3, 4, 5].map(() => [1, 2, '3']) }] },
      'coefficients.entries[0].coefficients[0] to be three finite numbers',
    ],
  ];
  for (const [change, message] of cases) {
    await expectError(() => newtonSchulzCoefficients([2, 3], { ...good, ...change }), 'ERR_INVALID_ARGUMENT', message);
  }
  await expectError(
    () => newtonSchulzCoefficients([2, 3], good, 6),
    'ERR_INVALID_ARGUMENT',
    'Expected steps to be 5, as its calibration is, got 6',
  );
  await expectError(
    () => new Muon(model(), { coefficients: good, steps: 6, device: 'cpu' }),
    'ERR_INVALID_ARGUMENT',
    'Expected steps to be 5',
  );
});

test('refuses arguments and files', async () => {
  expect(await run('--help')).toMatchObject({ status: 0, stderr: '' });
  for (const [args, message] of [
    [[], 'Expected one checkpoint, got 0'],
    [['a', 'b'], 'got 2'],
    [['a', '--steps', '11'], 'Expected --steps to be an integer in [1, 10], got "11"'],
    [['a', '--per', 'layer'], 'Expected --per to be one of "shape", "parameter", "group", got "layer"'],
    [['a', '--stpes', '3'], '--stpes'],
    [['a', '--out', './a'], 'to be different files'],
    [['a', '--html', 'coefficients.json'], 'to be different files'],
  ] as const) {
    const { status, stderr } = await run(...args);
    expect(status).toBe(2);
    expect(stderr).toContain(message);
  }
  const out = path.join(folder, 'unwritten.json');
  await expect(run(file, '--out', out, '--html', path.join(folder, 'none', 'report.html'))).rejects.toThrow(
    /ENOENT.*none/,
  );
  expect(existsSync(out)).toBe(false);
  const bad = path.join(folder, 'bad.safetensors');
  writeFileSync(bad, 'none');
  await expectError(() => run(bad), 'ERR_CHECKPOINT', 'not a valid safetensors file');
  using untouched = new Root(model(), { device: 'cpu' });
  await untouched.save(bad);
  await expectError(() => run(bad), 'ERR_CHECKPOINT', 'holds no momentum of ROOT or Muon that is not 0');
});

test('the report shows names as they are', async () => {
  const w = new Parameter({ name: '<img src=x>', shape: [8, 9], grad: gaussian(72) });
  using optimizer = new Root([w], { device: 'cpu' });
  await optimizer.step();
  const [checkpoint, html] = [path.join(folder, '<b>.safetensors'), path.join(folder, 'names.html')];
  await optimizer.save(checkpoint);
  await run(checkpoint, '--out', path.join(folder, 'names.json'), '--html', html);
  const page = readFileSync(html, 'utf8');
  expect(page).toMatch(/&(lt|#60);img src=x/);
  expect(page).not.toMatch(/<img|<b>\.safetensors/);
});

test('names do not steer the terminal, and links in the place of temporary files are not followed', async () => {
  const w = new Parameter({ name: 'a\u001b[2J\u009b\u202eb', shape: [8, 9], grad: gaussian(72) });
  using optimizer = new Root([w], { device: 'cpu' });
  await optimizer.step();
  const [checkpoint, out] = [path.join(folder, 'escapes.safetensors'), path.join(folder, 'escapes.json')];
  await optimizer.save(checkpoint);
  const victim = path.join(folder, 'victim');
  writeFileSync(victim, 'precious');
  symlinkSync(victim, `${out}.tmp`);
  const { status, stdout } = await run(checkpoint, '--out', out);
  expect(status).toBe(0);
  expect(stdout).toContain('a\\u001b[2J\\u009b\\u202eb');
  // eslint-disable-next-line no-control-regex
  expect(stdout).not.toMatch(/[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u202e]/);
  expect(readFileSync(victim, 'utf8')).toBe('precious');
  expect(existsSync(out)).toBe(true);
});
