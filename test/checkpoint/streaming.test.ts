import {
  linkSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { AdamW, Muon, Parameter, Root } from '../../lib/index.js';
import { bits, devicesUnderTest, expectError, gaussian, runScript } from '../support.js';

let folder: string;
let file: string;
beforeEach(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'root-optimizer-'));
  file = path.join(folder, 'run.safetensors');
});
afterEach(() => {
  rmSync(folder, { recursive: true, force: true });
});

function filled(name: string, shape: number[], seed: number): Parameter {
  const parameter = new Parameter({ name, shape });
  parameter.data.set(gaussian(parameter.size, seed));
  parameter.grad.set(gaussian(parameter.size, seed + 1));
  return parameter;
}

/** Parameters of which some are read with others, and one in several pieces of 4 MB. */
const model = (seed: number) => [
  filled('small', [3], seed),
  filled('large', [1100, 1201], seed + 10), // 5 MB
  ...Array.from({ length: 30 }, (_, i) => filled(`tiny.${i}`, [2, i + 1], seed + 20 + i)),
  filled('last', [7, 5], seed + 90),
];
const cheap = { coefficients: 'muon', steps: 1, normalize: 'rows' } as const;

describe.each(devicesUnderTest())('on %s', (device) => {
  test('tensors pass in pieces, large ones and small ones', async () => {
    const [there, here] = [model(1), model(500)];
    using saved = new Root(there, { ...cheap, device });
    using loaded = new Root(here, { ...cheap, device });
    saved.stepSync();
    await saved.save(file);
    await loaded.load(file);
    there.forEach((one, i) => {
      expect(bits(here[i]!.data)).toBe(bits(one.data));
      expect(loaded.stateOf(here[i]!)).toEqual(saved.stateOf(one));
    });
  });

  test("the device's own data are what is saved", async () => {
    if (device === 'cpu') return;
    const [w, other] = [filled('w', [70, 80], 1), filled('w', [70, 80], 3)];
    using saved = new Muon([w], { device, hostSync: 'manual' });
    using loaded = new Muon([other], { device, hostSync: 'manual' });
    const before = bits(w.data);
    w.data.fill(0);
    await saved.save(file);
    await loaded.load(file);
    expect(bits(other.data)).toBe(before);
  });
});

describe('a load that fails after its checks', () => {
  const params = () => [filled('a', [60, 70], 1), filled('b', [900], 3)];

  test.each<[string, RegExp, () => void]>([
    ['the file ends early', /the file ended early/, () => truncateSync(file, 20_000)],
    [
      'the file is written to',
      /to stay as it was while it is read/,
      () => utimesSync(file, new Date(0), new Date(0)), // as a write of the same values would leave it
    ],
    [
      'its values have become unusable',
      /Expected tensor "b\.expAvgSq".* to be finite/,
      () => {
        const bytes = readFileSync(file);
        bytes.writeFloatLE(NaN, bytes.length - 4);
        writeFileSync(file, bytes);
      },
    ],
  ])('%s: steps say so until a load succeeds', async (_, message, damage) => {
    using saved = new Root(params());
    saved.stepSync();
    await saved.save(file);
    const good = readFileSync(file);
    const here = params();
    using optimizer = new Root(here);
    await expectError(() => optimizer.load(file, { accept: damage }), 'ERR_CHECKPOINT', message);
    const again = /Expected a load to succeed first/;
    await expectError(() => optimizer.step(), 'ERR_CHECKPOINT', again);
    await expectError(() => optimizer.stepSync(), 'ERR_CHECKPOINT', again);
    await expectError(() => optimizer.save(path.join(folder, 'other')), 'ERR_CHECKPOINT', again);
    await expectError(() => optimizer.stateOf(here[0]!), 'ERR_CHECKPOINT', again);
    writeFileSync(file, 'no checkpoint');
    await expectError(() => optimizer.load(file), 'ERR_CHECKPOINT', 'not a valid safetensors file');
    await expectError(() => optimizer.stepSync(), 'ERR_CHECKPOINT', again);
    writeFileSync(file, good);
    expect((await optimizer.load(file)).step).toBe(1);
    for (const one of here) one.grad.fill(0.5);
    expect(optimizer.stepSync()).toMatchObject({ step: 2, applied: true });
  });

  test('weights do not make whole what a failed load has left', async () => {
    using saved = new Root(params());
    await saved.save(file);
    using optimizer = new Root(params());
    const accept = () => truncateSync(file, 20_000);
    await expectError(() => optimizer.load(file, { accept }), 'ERR_CHECKPOINT', 'ended early');
    const none = () => optimizer.loadWeights(file, { map: () => null });
    await expectError(none, 'ERR_CHECKPOINT', /Expected a load to succeed first/);
  });

  test('data that are replaced meanwhile', async () => {
    const large = filled('w', [1100, 1201], 1);
    using optimizer = new Muon([large], cheap);
    const saving = optimizer.save(file);
    large.data = large.data.slice();
    await expectError(() => saving, 'ERR_INVALID_ARGUMENT', 'data of parameter "w" to be the same array');
    expect(readdirSync(folder)).toEqual([]);
  });

  test('what accept throws is passed on, and nothing changes', async () => {
    using saved = new Root(params());
    await saved.save(file);
    const here = [filled('a', [60, 70], 7), filled('b', [900], 8)];
    using optimizer = new Root(here);
    const before = here.map((one) => bits(one.data));
    const own = new TypeError('mine');
    const accept = () => {
      throw own;
    };
    await expect(optimizer.load(file, { accept })).rejects.toBe(own);
    expect(here.map((one) => bits(one.data))).toEqual(before);
    expect(optimizer.stepSync()).toMatchObject({ applied: true });
  });

  test('an array that is detached meanwhile', async () => {
    const [large] = [filled('w', [1100, 1201], 1)];
    using optimizer = new Muon([large], cheap);
    await optimizer.save(file);
    const accept = () => {
      setImmediate(() => structuredClone(large.data.buffer, { transfer: [large.data.buffer as ArrayBuffer] }));
    };
    await expectError(
      () => optimizer.load(file, { accept }),
      'ERR_INVALID_ARGUMENT',
      /data of parameter "w".*detached/,
    );
    large.data = new Float32Array(large.size);
    await expectError(() => optimizer.stepSync(), 'ERR_CHECKPOINT', 'Expected a load to succeed first');
    await optimizer.load(file);
    expect(optimizer.stepSync()).toMatchObject({ applied: true });
  });
});

describe('keep', () => {
  const steps = () => readdirSync(folder).sort();

  test('former files have their steps in their names', async () => {
    const w = filled('w', [5, 6], 1);
    using optimizer = new Root([w]);
    const data: string[] = [];
    for (let step = 0; step < 5; step++) {
      await optimizer.save(file, { keep: 3 });
      data.push(bits(w.data));
      optimizer.stepSync();
    }
    expect(steps()).toEqual(['run.safetensors', 'run.safetensors.step-2', 'run.safetensors.step-3']);
    expect((await optimizer.load(`${file}.step-3`)).step).toBe(3);
    expect(bits(w.data)).toBe(data[3]);
    optimizer.stepSync();
    await optimizer.save(file, { keep: 1 });
    expect(steps()).toEqual(['run.safetensors']);
  });

  test('behind a symbolic link', async () => {
    using optimizer = new Root([filled('w', [5, 6], 1)]);
    mkdirSync(path.join(folder, 'real'));
    symlinkSync(path.join(folder, 'real', 'x'), file);
    writeFileSync(path.join(folder, 'real', 'x'), 'no checkpoint');
    for (let step = 0; step < 3; step++) {
      await optimizer.save(file, { keep: 2 });
      optimizer.stepSync();
    }
    expect(steps()).toEqual(['real', 'run.safetensors', 'run.safetensors.step-1']);
    expect((await optimizer.load(file)).step).toBe(2);
    expect((await optimizer.load(`${file}.step-1`)).step).toBe(1);
  });

  test('a former file that a killed process has named already', async () => {
    using optimizer = new Root([filled('w', [5, 6], 1)]);
    await optimizer.save(file);
    optimizer.stepSync();
    linkSync(file, `${file}.step-0`);
    await optimizer.save(file, { keep: 2 });
    expect(steps()).toEqual(['run.safetensors', 'run.safetensors.step-0']);
  });

  test('a save of the same step, and one in the place of another file', async () => {
    using optimizer = new Root([filled('w', [5, 6], 1)]);
    writeFileSync(file, 'no checkpoint');
    await optimizer.save(file, { keep: 3 });
    await optimizer.save(file, { keep: 3 });
    expect(steps()).toEqual(['run.safetensors']);
  });

  test.each([0, 1.5, '3'])('refuses %p', async (keep) => {
    using optimizer = new Root([filled('w', [5, 6], 1)]);
    await expectError(() => optimizer.save(file, { keep: keep as number }), 'ERR_INVALID_ARGUMENT', 'Expected keep');
    expect(steps()).toEqual([]);
  });
});

describe('signal', () => {
  test('a save that is aborted leaves the older file, and nothing besides', async () => {
    const params = [filled('w', [1100, 1201], 1)];
    using optimizer = new AdamW(params);
    await optimizer.save(file);
    const before = readFileSync(file);
    optimizer.stepSync();
    const controller = new AbortController();
    const saving = optimizer.save(file, { signal: controller.signal });
    const reason = new Error('enough');
    controller.abort(reason);
    await expect(saving).rejects.toBe(reason);
    await expect(optimizer.save(file, { signal: controller.signal })).rejects.toBe(reason);
    await expect(optimizer.save(file, { signal: AbortSignal.timeout(1) })).rejects.toMatchObject({
      name: 'TimeoutError',
    });
    expect(readFileSync(file).equals(before)).toBe(true);
    expect(readdirSync(folder)).toEqual(['run.safetensors']);
    await optimizer.save(file, { signal: new AbortController().signal });
    expect(readFileSync(file).equals(before)).toBe(false);
  });

  test('refuses what is no signal', async () => {
    using optimizer = new Root([filled('w', [5, 6], 1)]);
    for (const signal of [null, true, { aborted: false }]) {
      await expectError(() => optimizer.save(file, { signal: signal as never }), 'ERR_INVALID_ARGUMENT', 'AbortSignal');
    }
  });
});

const onLinux = process.platform === 'linux' ? test : test.skip;
onLinux('a save and a load take at most 64 MB beside the state', () => {
  const found = runScript<{ save: number; load: number }>(
    `
    const { readFileSync, writeFileSync } = require('node:fs');
    const w = new Parameter({ name: 'w', shape: [6000, 8000] }); // 192 MB, and as much again for each of grad and state
    w.data.fill(1);
    w.grad.fill(1);
    const optimizer = new Muon([w], { device: 'cpu', steps: 1, coefficients: 'muon' });
    const status = (key) => parseInt(readFileSync('/proc/self/status', 'utf8').split(key + ':')[1]);
    const extra = async (run) => {
      writeFileSync('/proc/self/clear_refs', '5'); // the peak begins anew
      const before = status('VmRSS');
      await run();
      return (status('VmHWM') - before) / 1024;
    };
    const file = ${JSON.stringify(file)};
    optimizer.stateOf(w); // its memory is mapped now
    const save = await extra(() => optimizer.save(file));
    const load = await extra(() => optimizer.load(file));
    console.log(JSON.stringify({ save, load }));`,
    {},
  );
  expect(found.save).toBeLessThan(64);
  expect(found.load).toBeLessThan(64);
});
