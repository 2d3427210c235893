import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { checkCuda } from '../../lib/cli/doctor/addon.js';
import type { Check } from '../../lib/cli/doctor/check.js';
import { devices } from '../../lib/index.js';
import { cli, root } from './command.js';

const emulator = path.join(root, 'build', 'Emulator', 'root_optimizer.node');

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'root-optimizer-doctor-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

interface Diagnosis {
  readonly well: boolean;
  readonly checks: readonly Check[];
}

function doctor(env: NodeJS.ProcessEnv = {}, flags: string[] = []): Diagnosis & { status: number | null } {
  const { status, stdout, stderr } = cli(['doctor', '--json'], env, flags);
  expect(stderr).toBe('');
  const diagnosis = JSON.parse(stdout) as Diagnosis;
  expect(status).toBe(diagnosis.well ? 0 : 1);
  for (const { name, state, found, remedy } of diagnosis.checks) {
    expect([typeof name, typeof found]).toEqual(['string', 'string']);
    expect(['ok', 'note', 'problem']).toContain(state);
    if (state === 'problem') expect(remedy).not.toBeNull();
  }
  return { ...diagnosis, status };
}

function write(name: string, content: string | Uint8Array, mode = 0o644): string {
  const file = path.join(folder, name);
  writeFileSync(file, content);
  chmodSync(file, mode);
  return file;
}

/** A module that is loaded first and changes what Node says of itself. */
function preload(name: string, code: string): string[] {
  return ['--require', write(`${name}.cjs`, code)];
}

test('all is well where the addon works', () => {
  const { well, checks } = doctor({ CXX: undefined, CUDACXX: undefined, PYTHON: undefined });
  expect(checks.filter(({ state }) => state === 'problem')).toEqual([]);
  expect(well).toBe(true);
  const { status, stdout } = cli(['doctor']);
  expect(status).toBe(0);
  expect(stdout).toMatch(/^ok +instruction set +/m);
  expect(stdout).toContain('All is well.');
});

/** A file of machine code for another processor. */
function foreign(): Uint8Array {
  const bytes = Buffer.alloc(64);
  bytes.writeUInt32BE(0x7f454c46);
  bytes.writeUInt16LE(process.arch === 'arm64' ? 62 : 183, 18);
  return bytes;
}

const other = process.arch === 'arm64' ? 'x64' : 'arm64';

function expectProblem(checks: readonly Check[], name: string, found: RegExp, remedy: RegExp): void {
  const own = checks.filter((one) => one.name === name && one.state === 'problem');
  expect(own.map((one) => one.found)).toContainEqual(expect.stringMatching(found));
  expect(own.map((one) => one.remedy)).toContainEqual(expect.stringMatching(remedy));
}

describe('each failure has its remedy', () => {
  test.each<[string, () => string, RegExp, RegExp]>([
    [
      'that is not there',
      () => path.join(folder, 'none.node'),
      ...([/names .*none\.node, and there is no such file/, /unset ROOT_OPTIMIZER_ADDON/] as const),
    ],
    [
      'of another platform',
      () => write('foreign.node', foreign()),
      ...([new RegExp(`is for linux-${other}, and this is `), /built for this machine/] as const),
    ],
    [
      'that is cut off',
      () => {
        const real = process.env['ROOT_OPTIMIZER_ADDON'] ?? path.join(root, 'build/Release/root_optimizer.node');
        return write('part.node', readFileSync(real).subarray(0, 4096));
      },
      ...([/part\.node does not load: /, /built for this machine/] as const),
    ],
    [
      'that is a text',
      () => write('text.node', 'no addon'),
      ...([/text\.node is no native addon/, /unset ROOT_OPTIMIZER_ADDON/] as const),
    ],
  ])('an addon %s', (_, file, found, remedy) => {
    const { status, checks } = doctor({ ROOT_OPTIMIZER_ADDON: file() });
    expectProblem(checks, 'addon', found, remedy);
    expect(status).toBe(1);
  });

  test('variables that point nowhere', () => {
    const { status, checks } = doctor({
      ROOT_OPTIMIZER_INSTRUCTION_SET: 'avx1024',
      ROOT_OPTIMIZER_CACHE: path.join(write('file', ''), 'cache'),
      ROOT_OPTIMIZER_ADON: 'x',
      ROOT_OPTIMIZER_CUDA: 'yes',
      CXX: 'no-such-compiler',
      CUDACXX: '/no/nvcc',
      PYTHON: 'no-such-python',
    });
    expect(status).toBe(1);
    expectProblem(checks, 'instruction set', /got "avx1024/, /unset ROOT_OPTIMIZER_INSTRUCTION_SET/);
    expectProblem(checks, 'cache', /cannot be written to: E/, /set ROOT_OPTIMIZER_CACHE to a folder/);
    expectProblem(checks, 'variables', /nothing reads ROOT_OPTIMIZER_ADON/, /set ROOT_OPTIMIZER_ADDON/);
    expectProblem(checks, 'variables', /ROOT_OPTIMIZER_CUDA is "yes"/, /set it to 0 or 1/);
    expectProblem(checks, 'compiler', /CXX is "no-such-compiler", which is no program/, /unset CXX/);
    expectProblem(checks, 'CUDACXX', /"\/no\/nvcc", which is no program/, /unset CUDACXX/);
    expectProblem(checks, 'PYTHON', /which is no program/, /unset PYTHON/);
  });

  test('old Node, little memory, another system, a compiler that is none', () => {
    const code = `Object.defineProperty(process, 'version', { value: 'v18.20.1' });
      Object.defineProperty(process, 'platform', { value: 'win32' });
      process.availableMemory = () => 2 ** 27;`;
    const { checks } = doctor({ CXX: 'true' }, preload('other', code));
    expectProblem(checks, 'node', /v18\.20\.1 is too old/, /install Node 20\.17/);
    expectProblem(checks, 'platform', /win32/, /Windows Subsystem for Linux/);
    expectProblem(checks, 'memory', /only 0\.1 GiB/, /end other programs/);
    expectProblem(checks, 'compiler', /CXX is "true", and .*true does not compile C\+\+20/, /g\+\+ 10, clang 12/);
  });

  test('no compiler, make or CMake, where an addon is needed', () => {
    const env = { PATH: folder, CXX: undefined, PYTHON: undefined, ROOT_OPTIMIZER_ADDON: write('x.node', 'none') };
    const needed = doctor(env).checks;
    for (const [name, remedy] of [
      ['compiler', /install g\+\+|xcode-select/],
      ['make', /install make|xcode-select/],
    ] as const) {
      const check = needed.find((one) => one.name === name);
      expect(check).toMatchObject({ state: 'problem', remedy: expect.stringMatching(remedy) as string });
    }
    write('make', '#!/bin/sh\n', 0o755);
    const withMake = doctor(env).checks.find(({ name }) => name === 'cmake');
    expect(withMake).toMatchObject({ state: 'problem', found: 'there is neither CMake nor Python 3' });
    write('cmake', '#!/bin/sh\necho cmake version 3.10.2\n', 0o755);
    const old = doctor({ ...env, PATH: `${folder}:/bin` }).checks.find(({ name }) => name === 'cmake');
    expect(old).toMatchObject({ state: 'problem', remedy: expect.stringContaining('CMake 3.19 or newer') as string });
    // With an addon, none of them is.
    const spare = doctor({ ...env, ROOT_OPTIMIZER_ADDON: process.env['ROOT_OPTIMIZER_ADDON'] }).checks;
    expect(spare.find(({ name }) => name === 'compiler')).toMatchObject({ state: 'note' });
  });

  test('an install without an addon, and a cache that is read-only', () => {
    const clone = path.join(folder, 'installed');
    mkdirSync(clone);
    // The sources without the lock file are what an installed package looks like.
    const script = `
      const path = require('node:path');
      const real = require('node:fs').existsSync;
      require('node:fs').existsSync = (file) =>
        !/package-lock\\.json$|build.Release/.test(String(file)) && real(file);`;
    const cache = path.join(folder, 'cache');
    const { checks } = doctor(
      { ROOT_OPTIMIZER_ADDON: undefined, ROOT_OPTIMIZER_CACHE: cache },
      preload('bare', script),
    );
    expect(checks.find(({ name }) => name === 'addon')).toMatchObject({
      state: 'problem',
      remedy: expect.stringMatching(/npm install @root-optimizer\/.*npx root-optimizer build/) as string,
    });
    expect(checks.find(({ name }) => name === 'cache')).toMatchObject({ state: 'ok' });
    expect(existsSync(cache)).toBe(false);
  });
});

describe('CUDA', () => {
  const report = (reason: string | null) => ({ ...devices(), cuda: { ...devices().cuda, devices: [], reason } });

  /** A folder that stands for /, with these files. */
  function system(name: string, files: Readonly<Record<string, string>>): string {
    const base = path.join(folder, name);
    for (const [file, content] of Object.entries(files)) {
      mkdirSync(path.dirname(path.join(base, file)), { recursive: true });
      writeFileSync(path.join(base, file), content);
    }
    return base;
  }
  const driver = { 'proc/driver/nvidia/version': 'NVRM version' };
  const gpu = { 'sys/bus/pci/devices/0/vendor': '0x10de\n', 'sys/bus/pci/devices/0/class': '0x030200\n' };

  test('no GPU is no problem, a GPU without a driver is one', () => {
    expect(checkCuda(report('no NVIDIA driver is installed'), system('plain', { x: '' }))).toMatchObject({
      state: 'ok',
    });
    expect(checkCuda(report('no NVIDIA driver is installed'), system('gpu', gpu))).toMatchObject({
      ...{ state: 'problem', remedy: 'install the NVIDIA driver for this system' },
    });
  });

  test('a build without CUDA beside a driver', () => {
    const base = system('driver', driver);
    const none = 'this build of the addon has no CUDA backend';
    const { CUDACXX, PATH } = process.env;
    try {
      process.env['CUDACXX'] = write('nvcc', '#!/bin/sh\n', 0o755);
      expect(checkCuda(report(none), base).remedy).toBe('npx root-optimizer build --cuda');
      process.env['CUDACXX'] = '/no/nvcc';
      const { remedy } = checkCuda(report(none), base);
      if (!existsSync('/usr/local/cuda/bin/nvcc')) expect(remedy).toMatch(/^install a CUDA toolkit from version 12\.0/);
    } finally {
      if (CUDACXX === undefined) delete process.env['CUDACXX'];
      else process.env['CUDACXX'] = CUDACXX;
      process.env['PATH'] = PATH;
    }
    expect(checkCuda(report('cudaGetDeviceCount failed'), base).remedy).toContain('nvidia-smi');
  });

  (existsSync(emulator) ? test : test.skip)('an old driver, by the CUDA backend itself in the emulator', () => {
    const { checks } = doctor({ ROOT_OPTIMIZER_ADDON: emulator, EMULATOR_DRIVER: '12080' });
    expect(checks.find(({ name }) => name === 'cuda')).toMatchObject({
      state: 'problem',
      found: expect.stringContaining('the NVIDIA driver is too old') as string,
      remedy: expect.stringContaining('install a newer NVIDIA driver') as string,
    });
  });
});

test('wrong uses have status 2', () => {
  expect(cli(['doctor', 'x'])).toMatchObject({ status: 2, stdout: '' });
  expect(cli(['devices', '--jsno'])).toMatchObject({ status: 2, stdout: '' });
  expect(cli(['docter']).stderr).toContain('Did you mean doctor?');
  const report = JSON.parse(cli(['devices', '--json']).stdout) as Record<string, unknown>;
  expect(Object.keys(report)).toEqual(expect.arrayContaining(['cpu', 'cuda', 'addon']));
});
