import { existsSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import type { Server } from 'node:http';
import path from 'node:path';
import { makeProject, readTarballs, type Result, root, run, serve, succeed, type Tarball, write } from './support.js';

const platform = `${process.platform}-${process.arch}`;

/** Trains a linear model of a shape that is in no table, so that coefficients are fitted. */
const training = `
  const target = Float32Array.from({ length: 37 * 23 }, (_, i) => Math.sin(i * i));
  const weight = new Parameter({ name: 'weight', shape: [37, 23] });
  const bias = new Parameter({ name: 'bias', shape: [23] });
  const optimizer = new Root([weight, bias], { lr: 0.5, weightDecay: 0 });
  const error = () => Math.max(...weight.data.map((value, i) => Math.abs(value - target[i])));
  const before = error();
  for (let step = 0; step < 60; step++) {
    for (const group of optimizer.paramGroups) group.lr = 0.5 * (1 - step / 60);
    weight.grad.set(weight.data.map((value, i) => value - target[i]));
    await optimizer.step();
  }
  optimizer.dispose();
  console.log(JSON.stringify({ before, after: error(), source: devices().addon.source }));
`;
const names = 'Parameter, Root, devices';
const programs = {
  CommonJS: {
    file: 'train.cjs',
    text: `const { ${names} } = require('root-optimizer'); (async () => {${training}})();`,
  },
  ESM: { file: 'train.mjs', text: `import { ${names} } from 'root-optimizer';${training}` },
};

let tarballs: Tarball[];
let server: Server;
let registry: string;
/** A project with the package installed. */
let project: string;
const projects: string[] = [];

function newProject(): string {
  const made = makeProject(registry);
  projects.push(made);
  return made;
}

function mainTarball(): string {
  return tarballs.find(({ manifest }) => manifest.name === 'root-optimizer')!.file;
}

beforeAll(async () => {
  tarballs = await readTarballs();
  ({ server, url: registry } = await serve(tarballs));
  project = newProject();
  await succeed('npm', ['install', mainTarball()], project);
  for (const { file, text } of Object.values(programs)) write(project, file, text);
}, 120_000);

afterAll(() => {
  server.close();
  for (const one of projects) rmSync(one, { recursive: true, force: true });
});

function expectTrained({ status, stdout, stderr }: Result, source = 'package'): void {
  expect(stderr).toBe('');
  expect(status).toBe(0);
  const result = JSON.parse(stdout) as { before: number; after: number; source: string };
  expect(result.source).toBe(source);
  expect(result.after).toBeLessThan(result.before / 2);
}

function bytesUnder(folder: string): number {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((file) => file.isFile())
    .reduce((sum, file) => sum + statSync(path.join(file.parentPath, file.name)).size, 0);
}

test('an install brings the addon of this platform alone, runs no script, and is under 1 MB besides', () => {
  const modules = path.join(project, 'node_modules');
  expect(readdirSync(path.join(modules, '@root-optimizer'))).toEqual([platform]);
  const lock = readFileSync(path.join(project, 'package-lock.json'), 'utf8');
  expect(lock).not.toContain('hasInstallScript');
  const addon = bytesUnder(path.join(modules, '@root-optimizer'));
  expect(bytesUnder(modules) - addon).toBeLessThan(1e6);
});

describe.each(['20', '22', '24', 'latest'])('Node %s', (version) => {
  let node: string;

  beforeAll(async () => {
    const name = `node-${platform}`;
    const folder = newProject();
    await succeed('npm', ['install', '--ignore-scripts', `${name}@${version}`], folder);
    node = path.join(folder, 'node_modules', name, 'bin', 'node');
  }, 120_000);

  test.each(Object.entries(programs))('%s trains', async (_, { file }) => {
    expectTrained(await run(node, [file], project));
  });

  test('worker threads train', async () => {
    const count = 3;
    write(
      project,
      'workers.cjs',
      `const { Worker } = require('node:worker_threads');
       for (let i = 0; i < ${count}; i++) new Worker('./train.cjs');`,
    );
    const { stdout, stderr, status } = await run(node, ['workers.cjs'], project);
    const lines = stdout.trim().split('\n');
    expect(lines).toHaveLength(count);
    for (const line of lines) expectTrained({ stdout: line, stderr, status });
  });
});

test.each(['5.2', '5.5', '5.9', '6.0', 'latest'])(
  'TypeScript %s: nodenext and bundler, strict, skipLibCheck off, no types of Node',
  async (version) => {
    const folder = newProject();
    await succeed('npm', ['install', mainTarball(), `typescript@${version}`], folder);
    const text = (load: string) => `${load}
      const options: RootOptions = { lr: 1e-2, threshold: { quantile: 0.9, scale: 1 } };
      export const optimizer: Root = new Root([new Parameter({ name: 'w', shape: [2, 2] })], options);
      export const report: Promise<StepReport> = optimizer.step();
      // @ts-expect-error
      new Root([], { lr: 'fast' });`;
    const load = `import { Parameter, Root, type RootOptions, type StepReport } from 'root-optimizer';`;
    write(folder, 'imports.mts', text(load));
    write(folder, 'requires.cts', text(load));
    const strict = { noEmit: true, strict: true, skipLibCheck: false, target: 'es2022', lib: ['es2022'], types: [] };
    const tsc = path.join(folder, 'node_modules', 'typescript', 'bin', 'tsc');
    const resolutions = {
      nodenext: { options: { module: 'nodenext' }, files: ['imports.mts', 'requires.cts'] },
      bundler: { options: { module: 'esnext', moduleResolution: 'bundler' }, files: ['imports.mts'] },
    };
    for (const [name, { options, files }] of Object.entries(resolutions)) {
      const config = JSON.stringify({ compilerOptions: { ...strict, ...options }, files });
      write(folder, `tsconfig.${name}.json`, config);
      expect(await run(process.execPath, [tsc, '-p', `tsconfig.${name}.json`], folder)).toEqual({
        status: 0,
        stdout: '',
        stderr: '',
      });
    }
  },
  120_000,
);

const suite = (imports: string) => `${imports}
  test('a step', async () => {
    const weight = new Parameter({ name: 'w', shape: [8, 8] });
    weight.grad.fill(1);
    const report = await new Root([weight]).step();
    expect(report.applied).toBe(true);
    expect(weight.data[0]).not.toBe(0);
    expect(() => new Root([])).toThrow(RootError);
  });`;

test('a test of jest uses the package', async () => {
  write(project, 'jest/step.test.js', suite(`const { Parameter, Root, RootError } = require('root-optimizer');`));
  const jest = path.join(root, 'node_modules', 'jest', 'bin', 'jest.js');
  const { status, stderr } = await run(process.execPath, [jest, '--rootDir', path.join(project, 'jest')], project);
  expect(stderr).toContain('1 passed');
  expect(status).toBe(0);
});

test('a test of vitest uses the package', async () => {
  const folder = newProject();
  await succeed('npm', ['install', mainTarball(), 'vitest@3'], folder);
  const imports = `import { expect, test } from 'vitest'; import { Parameter, Root, RootError } from 'root-optimizer';`;
  write(folder, 'step.test.mjs', suite(imports));
  const vitest = path.join(folder, 'node_modules', 'vitest', 'vitest.mjs');
  const { status, stdout } = await run(process.execPath, [vitest, 'run'], folder, { NO_COLOR: '1' });
  expect(stdout).toContain('1 passed');
  expect(status).toBe(0);
}, 120_000);

describe('a bundler', () => {
  const esbuild = path.join(root, 'node_modules', '.bin', 'esbuild');
  const bundle = (...options: string[]) =>
    succeed(esbuild, ['train.cjs', '--bundle', '--platform=node', '--outfile=out/bundle.cjs', ...options], project);

  test('leaves the package out where it is told to', async () => {
    await bundle('--external:root-optimizer');
    expectTrained(await run(process.execPath, ['out/bundle.cjs'], project));
  });

  test('that takes it in is named by the error', async () => {
    await bundle();
    const { status, stderr } = await run(process.execPath, ['out/bundle.cjs'], project);
    expect(stderr).toContain('mark root-optimizer as external');
    expect(status).not.toBe(0);
  });
});

test('the command builds from the sources into the cache, which npm ci leaves alone', async () => {
  const cache = path.join(project, 'cache');
  const env = { ROOT_OPTIMIZER_CACHE: cache, ROOT_OPTIMIZER_CUDA: '0' };
  const cli = (...args: string[]) => run('npx', ['root-optimizer', ...args], project, env);
  for (const command of [['--help'], ['build', '--help']]) expect((await cli(...command)).stdout).toMatch(/^Usage/);
  expect(existsSync(cache)).toBe(false);

  // A package that nobody may write to, as in an image or in a store that projects share.
  const installed = path.join(project, 'node_modules', 'root-optimizer');
  await succeed('chmod', ['-R', 'a-w', installed], project);
  const { status, stderr } = await cli('build', '--backend', 'node-gyp');
  expect({ status, stderr }).toEqual({ status: 0, stderr: expect.stringContaining('built') as string });
  expectTrained(await run(process.execPath, ['train.cjs'], project, env), 'build');

  await succeed('chmod', ['-R', 'u+w', installed], project);
  await succeed('npm', ['ci'], project);
  expectTrained(await run(process.execPath, ['train.cjs'], project, env), 'build');
  expect((await cli('build', '--backend', 'node-gyp')).stderr).toContain('is up to date');
  expectTrained(await run(process.execPath, ['train.cjs'], project));
}, 300_000);

test('coefficients are fitted on a thread, and the loop goes on', async () => {
  write(
    project,
    'fits.cjs',
    `const { Worker, ...rest } = require('node:worker_threads');
     let threads = 0;
     class Counted extends Worker { constructor(...args) { super(...args); threads++; } }
     Object.assign(require('node:worker_threads'), { Worker: Counted });
     const { Parameter, Root, newtonSchulzCoefficients } = require('root-optimizer');
     (async () => {
       const weight = new Parameter({ name: 'w', shape: [41, 43] });
       weight.grad.set(weight.grad.map((_, i) => Math.cos(i * i)));
       const optimizer = new Root([weight], { lr: 1e-2 });
       let turns = 0;
       const timer = setInterval(() => turns++, 1);
       const stepping = optimizer.step();
       optimizer.paramGroups[0].lr = 1; // belongs to the step after
       await stepping;
       clearInterval(timer);
       const other = new Parameter({ name: 'w', shape: [41, 43], grad: weight.grad });
       new Root([other], { lr: 1e-2, coefficients: newtonSchulzCoefficients([41, 43]) }).stepSync();
       console.log(threads, turns > 5, weight.data.every((value, i) => value === other.data[i]));
     })();`,
  );
  expect(await succeed(process.execPath, ['fits.cjs'], project)).toBe('1 true true\n');
});
