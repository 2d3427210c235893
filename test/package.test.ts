import { execFileSync, spawnSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

const root = path.join(__dirname, '..');
const builtAddon = path.resolve(
  process.env['ROOT_OPTIMIZER_ADDON'] ?? path.join(root, 'build/Release/root_optimizer.node'),
);

interface Manifest {
  version: string;
  dependencies: Record<string, string>;
}

function readJson(file: string): unknown {
  return JSON.parse(readFileSync(path.join(root, file), 'utf8'));
}

const manifest = readJson('package.json') as Manifest;

/** A project that has the packed package and its dependencies, but no addon. */
let project: string;
let packed: string[];

beforeAll(() => {
  project = mkdtempSync(path.join(tmpdir(), 'root-optimizer-'));
  const modules = path.join(project, 'node_modules');
  mkdirSync(modules);

  // The output of prepack comes before npm's.
  const output = execFileSync('npm', ['pack', '--json', '--pack-destination', project], {
    cwd: root,
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const [tarball] = JSON.parse(output.slice(output.indexOf('[\n'))) as [
    { filename: string; files: { path: string }[] },
  ];
  packed = tarball.files.map((file) => file.path);
  execFileSync('tar', ['-xzf', path.join(project, tarball.filename), '-C', modules]);
  renameSync(path.join(modules, 'package'), path.join(modules, 'root-optimizer'));
  for (const name of Object.keys(manifest.dependencies)) {
    symlinkSync(path.join(root, 'node_modules', name), path.join(modules, name));
  }
}, 60_000);

afterAll(() => rmSync(project, { recursive: true, force: true }));

function node(args: string[], environment?: NodeJS.ProcessEnv) {
  const cache = path.join(project, 'cache');
  const env = { ...process.env, ROOT_OPTIMIZER_ADDON: undefined, ROOT_OPTIMIZER_CACHE: cache, ...environment };
  return spawnSync(process.execPath, args, { cwd: project, env, encoding: 'utf8' });
}

function cli(args: string[], environment?: NodeJS.ProcessEnv) {
  return node([path.join(project, 'node_modules/root-optimizer/dist/cli/main.js'), ...args], environment);
}

test('the package holds what a build needs, and nothing of the workshop', () => {
  const { native, cuda } = readJson('native/sources.json') as { native: string[]; cuda: string[] };
  const archive = path.join(project, 'node_modules/root-optimizer/sources.tar.gz');
  const sources = execFileSync('tar', ['-tzf', archive], { encoding: 'utf8' }).split('\n');
  expect(sources).toEqual(
    expect.arrayContaining([
      ...[...native, ...cuda, 'cuda/no_cuda.cpp', 'cuda/launch.cuh', 'native/backend.h', 'CMakeLists.txt'],
      ...['native/sources.json', 'native/binding.gyp', 'native/exports.map', 'package.json'],
    ]),
  );
  expect(sources.filter((file) => file.startsWith('native/build'))).toEqual([]);
  expect(packed).toEqual(
    expect.arrayContaining([
      ...['scripts/build.mjs', 'scripts/build/plan.mjs', 'scripts/lock.mjs', 'binding.d.ts', 'LICENSE'],
      ...['dist/index.js', 'dist/index.mjs', 'dist/cli/main.js', 'dist/index.d.ts', 'dist/index.d.mts'],
    ]),
  );
  expect(packed.filter((file) => /^(lib|test|build|native|cuda|scripts\/(?!build|lock)|\.)/.test(file))).toEqual([]);
});

test('what the pages of the package link to is in it, or said to be in the repository', () => {
  const folder = path.join(project, 'node_modules/root-optimizer');
  const readme = readFileSync(path.join(folder, 'README.md'), 'utf8');
  const [, elsewhere] = /In the repository alone are (.*)\./.exec(readme.replace(/\s+/g, ' '))!;
  const outside = elsewhere!.match(/`[^`]+`/g)!.map((name) => `${name.slice(1, -1)}/`);
  for (const page of packed.filter((file) => file.endsWith('.md'))) {
    const text = readFileSync(path.join(folder, page), 'utf8');
    for (const [, link] of text.matchAll(/\]\((?!https?:|#)([^)#]+)/g)) {
      const target = path.join(path.dirname(page), link!);
      if (!outside.some((name) => target.startsWith(name))) expect(packed).toContain(target);
    }
  }
});

test('require and import give the same things', () => {
  const file = path.join(project, 'same.mjs');
  writeFileSync(
    file,
    `import * as imported from 'root-optimizer';
     import { createRequire } from 'node:module';
     const required = createRequire(import.meta.url)('root-optimizer');
     const names = Object.keys(required);
     console.log(JSON.stringify({ names, differing: names.filter((name) => imported[name] !== required[name]) }));`,
  );
  const { stdout, stderr } = node([file], { ROOT_OPTIMIZER_ADDON: builtAddon });
  expect(stderr).toBe('');
  const { names, differing } = JSON.parse(stdout) as { names: string[]; differing: string[] };
  expect(names).toEqual(expect.arrayContaining(['Root', 'Muon', 'AdamW', 'Parameter', 'orthogonalize', 'RootError']));
  expect(differing).toEqual([]);
});

test('types resolve in both module systems', () => {
  writeFileSync(
    path.join(project, 'imports.mts'),
    `import { Parameter, Root } from 'root-optimizer';
     export const optimizer: Root = new Root([new Parameter({ name: 'w', shape: [2, 2] })], { lr: 1e-2 });
     // @ts-expect-error
     new Root([], { lr: 'fast' });`,
  );
  writeFileSync(
    path.join(project, 'requires.cts'),
    `import root = require('root-optimizer');
     export const report: root.DeviceReport = root.devices();
     // @ts-expect-error
     root.devices().gpu;`,
  );
  // Neither types of Node or of browsers, nor a newer library of types than the language's.
  const tsc = path.join(root, 'node_modules/typescript/bin/tsc');
  const options = { noEmit: true, strict: true, module: 'nodenext', target: 'es2022', lib: ['es2022'], types: [] };
  writeFileSync(
    path.join(project, 'tsconfig.json'),
    JSON.stringify({ compilerOptions: options, files: ['imports.mts', 'requires.cts'] }),
  );
  const { stdout } = node([tsc]);
  expect(stdout).toBe('');
}, 30_000);

test('without an addon an import works, and the first use names the command that builds it', () => {
  for (const load of [`require('root-optimizer')`, `import('root-optimizer')`]) {
    const code = `(async () => {
      const { makeSchedule, Parameter, Root, RootError } = await ${load};
      makeSchedule('linear', 4);
      const weight = new Parameter({ name: 'w', shape: [2, 2] });
      try { new Root([weight]); } catch (error) {
        console.log(error instanceof RootError, error.code, error.stack === 'RootError: ' + error.message);
        console.log(error.message);
      }
    })();`;
    const { stdout, stderr } = node(['-e', code]);
    expect(stderr).toBe('');
    const [first, message, ...rest] = stdout.split('\n');
    expect(first).toBe('true ERR_ADDON_MISSING true');
    expect(message).toMatch(/^The native addon is missing: .*cache.*; run: npx root-optimizer build$/);
    expect(rest).toEqual(['']);
  }

  const { status, stderr } = cli(['devices']);
  expect(stderr).toContain('npx root-optimizer build');
  expect(stderr).not.toContain('    at ');
  expect(status).toBe(1);
});

test('the command prints devices, help and version, and refuses what it does not know', () => {
  expect(existsSync(builtAddon)).toBe(true);
  const built = { ROOT_OPTIMIZER_ADDON: builtAddon };
  const report = JSON.parse(cli(['devices', '--json'], built).stdout) as { cpu: { physicalCores: number } };
  expect(report.cpu.physicalCores).toBeGreaterThan(0);
  expect(cli(['devices'], built).stdout).toMatch(/^cpu +.*physical core/);

  expect(cli(['--version']).stdout.trim()).toBe(manifest.version);
  expect(cli(['--help']).stdout).toContain('devices');
  expect(cli(['build', '--help']).stdout).toContain('--backend');
  expect(cli(['calibrate', '--help']).stdout).toContain('--per');
  const refused = cli(['biuld']);
  expect(refused.stderr).toContain('"biuld"');
  expect(refused.status).toBe(2);
  const misspelt = cli(['build', '--debgu']);
  expect(misspelt.stderr).toContain('--debgu');
  expect(misspelt.status).toBe(1);
});

test('a build that cannot be says what is missing and how to install it', () => {
  const { status, stderr } = cli(['build'], { PATH: '', CXX: undefined, PYTHON: undefined });
  expect(stderr).toContain('Missing: a C++ compiler, CMake and make or Ninja');
  expect(stderr).toContain('apt-get install g++ make cmake');
  expect(status).toBe(1);
});

test('the lock file names no registry', () => {
  expect(readFileSync(path.join(root, 'package-lock.json'), 'utf8')).not.toMatch(/"resolved"/);
});
