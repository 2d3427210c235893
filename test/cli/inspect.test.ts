import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { type Inspection, inspectFile } from '../../lib/cli/inspect-file.js';
import { Parameter, Root } from '../../lib/index.js';
import { expectError, gaussian } from '../support.js';
import { cli } from './command.js';

let folder: string;
let file: string;
beforeAll(async () => {
  folder = mkdtempSync(path.join(tmpdir(), 'root-optimizer-inspect-'));
  file = path.join(folder, 'run.safetensors');
  const qkv = new Parameter({ name: 'qkv', shape: [12, 8], split: 3, data: gaussian(96) });
  const bias = new Parameter({ name: 'bias\u001b[2J', shape: [8] });
  qkv.grad.set(gaussian(96, 2));
  bias.grad.fill(1);
  using optimizer = new Root([qkv, bias], { device: 'cpu', lr: 0.5 });
  await optimizer.step();
  await optimizer.save(file, { notes: { epoch: '1' } });
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** A safetensors file of one tensor. */
function write(name: string, dtype: string, shape: number[], bytes: Uint8Array): string {
  const header = Buffer.from(JSON.stringify({ w: { dtype, shape, data_offsets: [0, bytes.length] } }));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(header.length));
  const target = path.join(folder, name);
  writeFileSync(target, Buffer.concat([length, header, bytes]));
  return target;
}

const bytesOf = (values: number[]) => new Uint8Array(Float32Array.from(values).buffer);

test('the command tells tensors, norms, thresholds, clipped shares and spectra', () => {
  const { status, stdout, stderr } = cli(['inspect', file]);
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  expect(stdout).toContain('a checkpoint of step 1, 5 tensors');
  expect(stdout).toContain('notes: epoch');
  expect(stdout).toMatch(/^qkv +12×8 +root +0\.5 +[\d.]+ to [\d.]+ +\d+\.\d % to \d+\.\d % +/m);
  expect(stdout).toMatch(/^qkv\.momentumBuffer +F32 +12×8 +[\d.]+ +[\d.]+ +[\d.]+ +[\d.]+ +│[ ▁▂▃▄▅▆▇█]{24}│$/m);
  expect(stdout).toContain('bias\\u001b[2J.expAvg');
  expect(stdout).not.toContain('\u001b');
});

test('JSON has the figures of every matrix', () => {
  const { status, stdout } = cli(['inspect', file, '--json']);
  expect(status).toBe(0);
  const found = JSON.parse(stdout) as Inspection;
  expect(found).toMatchObject({ format: 'root-optimizer-inspection', version: 1, file, step: 1, notes: ['epoch'] });
  const [qkv] = found.parameters;
  expect(qkv).toMatchObject({ name: 'qkv', shape: [12, 8], algorithm: 'root', lr: 0.5 });
  for (const list of [qkv!.thresholds, qkv!.clipped, qkv!.gradientThresholds]) expect(list).toHaveLength(3);
  for (const share of qkv!.clipped) expect(share).toBeGreaterThan(0);
  const data = found.tensors.find(({ name }) => name === 'qkv.data')!;
  expect(data).toMatchObject({ type: 'F32', elements: 96, bytes: 384, nonFinite: 0 });
  expect(data.spectra).toHaveLength(3);
  for (const { rows, columns, exact, histogram } of data.spectra) {
    expect([rows, columns, exact]).toEqual([4, 8, true]);
    expect(histogram.reduce((a, b) => a + b, 0)).toBeCloseTo(1);
  }
});

test('files of other programs, values that are not finite and types that are not read', async () => {
  const diagonal = await inspectFile(write('diagonal', 'F32', [2, 2], bytesOf([3, 0, 0, 4])), 'auto');
  expect(diagonal).toMatchObject({ step: null, parameters: [] });
  expect(diagonal.tensors[0]).toMatchObject({ norm: 5, rms: 2.5, largest: 4, nonFinite: 0 });
  const [spectrum] = diagonal.tensors[0]!.spectra;
  expect([spectrum!.largest, spectrum!.smallest, spectrum!.stableRank].map((one) => one.toFixed(4))).toEqual([
    ...['4.0000', '3.0000', '1.5625'],
  ]);
  const broken = write('broken', 'F32', [2, 2], bytesOf([3, NaN, Infinity, 4]));
  expect((await inspectFile(broken, 'auto')).tensors[0]).toMatchObject({ norm: 5, nonFinite: 2, spectra: [] });
  expect(cli(['inspect', broken]).stdout).toContain('2 not finite');
  const whole = await inspectFile(write('whole', 'I64', [1], new Uint8Array(8)), 'all');
  expect(whole.tensors[0]).toMatchObject({ type: 'I64', norm: null, spectra: [] });
  expect((await inspectFile(file, 'none')).tensors.flatMap(({ spectra }) => spectra)).toEqual([]);
});

test('wrong uses have status 2, and files that cannot be read status 1 and one line', async () => {
  for (const [args, message] of [
    [['inspect'], 'Expected one file, got 0.'],
    [['inspect', file, '--spectra', 'al'], 'got "al". Did you mean all?'],
    [['inspect', file, '--jsn'], "Unknown option '--jsn'"],
  ] as const) {
    const { status, stderr } = cli(args);
    expect(status).toBe(2);
    expect(stderr).toContain(message);
    expect(stderr).not.toMatch(/^ +at /m);
  }
  const absent = path.join(folder, 'absent');
  expect(cli(['inspect', absent])).toMatchObject({
    ...{ status: 1, stdout: '' },
    stderr: `Cannot read ${absent}: ENOENT: no such file or directory, open '${absent}'\n`,
  });
  await expectError(() => inspectFile(folder, 'auto'), 'ERR_CHECKPOINT', 'it is not a file');
});
