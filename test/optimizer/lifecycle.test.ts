import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { devicesUnderTest, isEmulated } from '../support.js';

/** The side of a matrix whose step is still going on when a thread or the process ends. */
const busy = devicesUnderTest().some(isEmulated) ? 300 : 700;

const lib = JSON.stringify(path.join(__dirname, '../../lib/index.ts'));

/** The script that every thread of the child begins with. */
const prelude = `
  require('tsx/cjs');
  const threads = require('node:worker_threads');
  const { AdamW, Parameter, Root: Default, orthogonalize } = require(${lib});
  // To fit coefficients to a shape would take most of a short thread's time.
  class Root extends Default {
    constructor(parameters) {
      super(parameters, { coefficients: 'muon' });
    }
  }
  const values = (size) => {
    const made = new Float32Array(size);
    for (let i = 0, state = 1; i < size; i++) {
      state = (Math.imul(state, 1664525) + 1013904223) | 0;
      made[i] = state / 2 ** 31;
    }
    return made;
  };
  const parameter = (n) => new Parameter({ name: 'w', shape: [n, n], data: values(n * n), grad: values(n * n) });
  const sum = (array) => array.reduce((a, b) => a + b, 0);
  const worker = (code) => new threads.Worker(prelude + code, { eval: true });
  const message = (from) => new Promise((resolve, reject) => from.once('message', resolve).once('error', reject));
`;

/** Runs a script in a process of its own. A crash then fails a test and not the run. */
function run(
  script: string,
  ...flags: string[]
): { status: number | null; signal: string | null; lines: string[]; stderr: string } {
  const code = `const prelude = ${JSON.stringify(prelude)};${prelude}(async () => {${script}})()`;
  const { status, signal, stdout, stderr } = spawnSync(process.execPath, [...flags, '-e', code], {
    encoding: 'utf8',
    cwd: path.join(__dirname, '..', '..'),
  });
  return { status, signal, lines: stdout.split('\n').filter(Boolean), stderr };
}

const ended = (status: number, ...lines: string[]) => ({ status, signal: null, lines, stderr: '' });

test('worker threads load the addon and compute the same', () => {
  expect(
    run(`
    const task = \`(async () => {
      const w = parameter(90);
      const optimizer = new Root([w]);
      await optimizer.step();
      optimizer.stepSync();
      threads.parentPort?.postMessage(sum(w.data));
      return sum(w.data);
    })()\`;
    const workers = [1, 2, 3].map(() => message(worker(task)));
    const results = await Promise.all([eval(task), ...workers]);
    console.log(new Set(results).size, Number.isFinite(results[0]));
  `),
  ).toEqual(ended(0, '1 true'));
}, 60_000);

test('a worker that is terminated during a step takes nothing with it', () => {
  expect(
    run(`
    for (let i = 0; i < 8; i++) {
      const one = worker(\`
        const optimizer = new Root([parameter(${busy})]);
        optimizer.step();
        orthogonalize(values(${busy ** 2}), [${busy}, ${busy}], { coefficients: 'muon' });
        threads.parentPort.postMessage('stepping');
      \`);
      await message(one);
      await new Promise((resolve) => setTimeout(resolve, 10 * i));
      await one.terminate();
    }
    const optimizer = new Root([parameter(100)]);
    console.log((await optimizer.step()).step);
  `),
  ).toEqual(ended(0, '1'));
}, 120_000);

test('a worker that ends after a call of a function takes its threads with it', () => {
  expect(
    run(`
    for (let i = 0; i < 4; i++) {
      const one = worker(\`
        orthogonalize(values(90000), [300, 300], { threads: 3, coefficients: 'muon' })
          .then((x) => threads.parentPort.postMessage(x.every(Number.isFinite)));
        setInterval(() => {}, 1000);
      \`);
      console.log(await message(one));
      await one.terminate();
    }
    const x = await orthogonalize(values(90000), [300, 300], { threads: 3, coefficients: 'muon' });
    console.log(x.every(Number.isFinite));
  `),
  ).toEqual(ended(0, 'true', 'true', 'true', 'true', 'true'));
}, 120_000);

test('a process may exit during a step', () => {
  expect(run(`new Root([parameter(${busy})]).step(); process.exit(7)`)).toEqual(ended(7));
  expect(
    run(
      `const w = parameter(${busy});
       process.on("exit", () => console.log(w.data[0] !== values(1)[0]));
       new Root([w]).step()`,
    ),
  ).toEqual(ended(0, 'true'));
}, 60_000);

test('an optimizer that nobody refers to finishes its step', () => {
  expect(
    run(
      `
    const w = parameter(${busy});
    const before = w.data[0];
    const pending = new Root([w]).step();
    for (let i = 0; i < 5; i++) { gc(); await new Promise(setImmediate); }
    console.log((await pending).applied, w.data[0] !== before);
  `,
      '--expose-gc',
    ),
  ).toEqual(ended(0, 'true true'));
}, 60_000);

test('optimizers that are not disposed of give their memory back', () => {
  const { status, lines } = run(`
    const [data, grad] = [new Float32Array(1 << 20), new Float32Array(1 << 20)];
    for (let i = 0; i < 200; i++) {
      new AdamW([new Parameter({ name: 'w', shape: [1 << 20], data, grad })]).stepSync();
      await new Promise(setImmediate);
    }
    console.log(process.memoryUsage.rss() / 2 ** 20);
  `);
  expect(status).toBe(0);
  // The states of all optimizers together would take 1600 MiB.
  expect(Number(lines[0])).toBeLessThan(800);
}, 60_000);

test('a process that is killed while it saves leaves a whole file', () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'root-optimizer-'));
  const file = path.join(folder, 'run.safetensors');
  try {
    for (let i = 0; i < 3; i++) {
      const { signal } = run(`
        const optimizer = new Root([parameter(1000)]);
        await optimizer.save(${JSON.stringify(file)});
        setTimeout(() => process.kill(process.pid, 'SIGKILL'), ${2 + 3 * i});
        for (;;) await optimizer.save(${JSON.stringify(file)});
      `);
      expect(signal).toBe('SIGKILL');
      expect(existsSync(file)).toBe(true);
      const bytes = readFileSync(file);
      expect(bytes.length).toBe(8 + Number(bytes.readBigUInt64LE(0)) + 2 * 4_000_000);
      expect(run(`console.log((await new Root([parameter(1000)]).load(${JSON.stringify(file)})).step)`)).toEqual(
        ended(0, '0'),
      );
    }
    expect(readdirSync(folder)).toContain('run.safetensors');
  } finally {
    rmSync(folder, { recursive: true });
  }
}, 60_000);
