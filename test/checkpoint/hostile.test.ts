import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { temporaryName } from '../../lib/checkpoint/temporary.js';
import { describe as describeValue } from '../../lib/errors.js';
import { Parameter, Root, RootError } from '../../lib/index.js';
import { expectError, gaussian, runScript } from '../support.js';

let folder: string;
let file: string;
beforeEach(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'root-optimizer-hostile-'));
  file = path.join(folder, 'run.safetensors');
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const parameter = () => new Parameter({ name: 'w', shape: [3, 4], data: gaussian(12) });

function writeHeader(header: string): void {
  const bytes = Buffer.from(header);
  const size = Buffer.alloc(8);
  size.writeBigUInt64LE(BigInt(bytes.length));
  writeFileSync(file, Buffer.concat([size, bytes]));
}

async function messageOf(action: () => unknown): Promise<string> {
  const error = await Promise.resolve()
    .then(action)
    .then(
      () => undefined,
      (thrown: unknown) => thrown,
    );
  expect(error).toBeInstanceOf(RootError);
  return (error as RootError).message;
}

test('settings are written once a group, however many parameters there are', async () => {
  const names = Array.from({ length: 400 }, (_, i) => `layers.${i}.weight`);
  const triple = [3.4445, -4.775, 2.0315] as const;
  const group = (params: Parameter[]) => ({
    params,
    coefficients: Array.from({ length: 100 }, () => triple),
    steps: 100,
  });
  const [first, second] = [1, 2].map(() => names.map((name) => new Parameter({ name, shape: [3, 4] })));
  using optimizer = new Root([group(first!)]);
  await optimizer.save(file);
  const header = Number(readFileSync(file).readBigUInt64LE());
  expect(header).toBeLessThan(400 * 700);
  using other = new Root([group(second!)]);
  await other.load(file);
});

test('a header that no reader would take is refused before the file is touched', async () => {
  using optimizer = new Root([parameter()]);
  await optimizer.save(file);
  const before = readFileSync(file);
  await expectError(
    () => optimizer.save(file, { notes: { log: 'x'.repeat(6 << 20) } }),
    'ERR_CHECKPOINT',
    /^Expected the header of .* to take at most \d+ bytes, got \d+: notes are for little$/,
  );
  expect(readFileSync(file).equals(before)).toBe(true);
  expect(readdirSync(folder)).toEqual(['run.safetensors']);
});

test('a large header and one of many parts are refused without being parsed', async () => {
  using optimizer = new Root([parameter()]);
  writeHeader(`{"__metadata__":{"format":"${'x'.repeat(9 << 20)}"}}`);
  await expectError(() => optimizer.load(file), 'ERR_CHECKPOINT', 'its header is larger than one of such a file');
  writeHeader(`{"__metadata__":[${'[],'.repeat(1.3e6)}[]]}`);
  const parse = jest.spyOn(JSON, 'parse');
  try {
    await expectError(() => optimizer.load(file), 'ERR_CHECKPOINT', 'its header is larger than one of such a file');
    expect(parse).not.toHaveBeenCalled();
  } finally {
    parse.mockRestore();
  }
});

test('what dead processes left is removed by the next save, what living ones write is not', async () => {
  const own = temporaryName(file);
  const [, id, start] = /-(\d+)-(\d+)-[0-9a-f]+\.tmp$/.exec(own)!;
  expect(id).toBe(String(process.pid));
  const { pid } = spawnSync(process.execPath, ['--version']);
  const renamed = (process: string, began: string) => own.replace(`-${id}-${start}-`, `-${process}-${began}-`);
  const abandoned = [renamed(String(pid), start!)];
  // The number of a process that is another one by now. Only Linux tells when a process began.
  if (start !== '0') abandoned.push(renamed(id!, String(Number(start) - 1)));
  const elsewhere = temporaryName(path.join(folder, 'other')).replace(`-${id}-`, `-${pid}-`);
  for (const name of [own, ...abandoned, elsewhere]) writeFileSync(name, '');
  using optimizer = new Root([parameter()]);
  await optimizer.save(file);
  expect(readdirSync(folder).sort()).toEqual([own, elsewhere, file].map((name) => path.basename(name)).sort());
});

const onLinux = process.platform === 'linux' ? test : test.skip;
onLinux('what is not a file is neither read nor replaced', async () => {
  using optimizer = new Root([parameter()]);
  const fifo = path.join(folder, 'fifo');
  execFileSync('mkfifo', [fifo]);
  symlinkSync(path.join(folder, 'nowhere'), path.join(folder, 'link'));
  for (const [name, message] of [
    [fifo, 'it is not a file'],
    ['/dev/null', 'it is not a file'],
    [folder, 'it is not a file'],
    [path.join(folder, 'link'), 'it is a link to nothing'],
  ] as const) {
    await expectError(() => optimizer.save(name), 'ERR_CHECKPOINT', message);
  }
  for (const name of [fifo, '/dev/zero', folder]) {
    await expectError(() => optimizer.load(name), 'ERR_CHECKPOINT', 'it is not a file');
  }
  expect(readdirSync(folder).sort()).toEqual(['fifo', 'link']);
  expect(existsSync('/dev/null')).toBe(true);
});

test('a name may be as long as the system allows', async () => {
  using optimizer = new Root([parameter()]);
  const name = path.join(folder, `${'n'.repeat(240)}.st`);
  await optimizer.save(name);
  expect((await optimizer.load(name)).step).toBe(0);
});

onLinux('where memory is short, a look at the state fails, and a save does not', () => {
  const found = runScript<string[]>(
    `
    const { execFileSync } = require('node:child_process');
    const { readFileSync } = require('node:fs');
    const w = new Parameter({ name: 'w', shape: [4000, 6000] });
    const optimizer = new Muon([w], { device: 'cpu', steps: 1, coefficients: 'muon' });
    await optimizer.save(${JSON.stringify(file)}); // the engine's own memory for it is taken now
    const used = Number(/VmSize:\\s+(\\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))[1]) * 1024;
    execFileSync('prlimit', ['--pid', String(process.pid), '--as=' + (used + (48 << 20)) + ':']);
    const codes = [];
    try {
      optimizer.stateOf(w);
    } catch (error) {
      codes.push(error.code);
    }
    optimizer.save(${JSON.stringify(file)}).then(
      () => codes.push('saved'),
      (error) => codes.push(error.code),
    ).then(() => {
      execFileSync('prlimit', ['--pid', String(process.pid), '--as=unlimited:']);
      codes.push(String(optimizer.stateOf(w).step));
      console.log(JSON.stringify(codes));
    });`,
    { MALLOC_ARENA_MAX: '1' },
  );
  expect(found).toEqual(['ERR_OUT_OF_MEMORY', 'saved', '0']);
});

test('any value can be described', async () => {
  const { proxy, revoke } = Proxy.revocable({}, {});
  revoke();
  const hostile: unknown[] = [
    proxy,
    ...[{ constructor: null }, { constructor: { name: 3 } }, { constructor: { name: Symbol('s') } }],
    Object.create(null),
    new Proxy(parameter(), {}),
    Object.defineProperty({}, 'constructor', { get: () => proxy }),
    {
      get [Symbol.toStringTag]() {
        throw new Error('no');
      },
    },
    Object.defineProperty(() => 1, 'name', { value: { toString: null } }),
  ];
  for (const value of hostile) expect(typeof describeValue(value)).toBe('string');
  await expectError(() => new Root([new Proxy(parameter(), {})]), 'ERR_INVALID_ARGUMENT', 'Parameters');
});

test('messages stay short, whatever a file or a user says', async () => {
  const long = 'x'.repeat(300_000);
  expect(await messageOf(() => new Root([parameter()], { [long]: 1 }))).toHaveLength(
    (await messageOf(() => new Root([parameter()], { [long.slice(0, 1000)]: 1 }))).length,
  );
  using optimizer = new Root([parameter()]);
  writeHeader(`{"${long}":{"dtype":"F32","shape":[1],"data_offsets":[1,5]}}`);
  expect((await messageOf(() => optimizer.load(file))).length).toBeLessThan(500);
  writeHeader(`{"a":{"dtype":"${long}","shape":[1],"data_offsets":[0,4]}}`);
  expect((await messageOf(() => optimizer.load(file))).length).toBeLessThan(500);
  using other = new Root([new Parameter({ name: long, shape: [3, 4] })], { coefficients: 'muon' });
  await other.save(file);
  expect((await messageOf(() => optimizer.load(file))).length).toBeLessThan(1000);
});

test('an own property does not hide a resizable buffer', async () => {
  // TypeScript's library does not know resizable buffers yet.
  const make = ArrayBuffer as unknown as new (size: number, options: { maxByteLength: number }) => ArrayBuffer;
  const data = new Float32Array(new make(48, { maxByteLength: 96 }), 0, 12);
  Object.defineProperty(data, 'buffer', { value: new ArrayBuffer(48) });
  await expectError(
    () => new Parameter({ name: 'w', shape: [3, 4], data }),
    'ERR_INVALID_ARGUMENT',
    'got a resizable ArrayBuffer',
  );
});
