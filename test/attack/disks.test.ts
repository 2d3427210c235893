import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { Muon, type Optimizer, Parameter } from '../../lib/index.js';
import { gaussian } from '../support.js';
import { type Answer, makeLimited, type Task } from './programs/limits.js';
import { attack, type Attempts, type Chance, digest, refusal, Servant, skipAttack } from './support.js';

const folder = mkdtempSync(path.join(tmpdir(), 'root-optimizer-disks-'));
// A user without rights has to be able to come to what is in it.
chmodSync(folder, 0o755);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const [good, bad] = ['good', 'bad'].map((name) => path.join(folder, name)) as [string, string];

/** Defines an attack whose attempts begin with the folders `good` and `bad`, both empty. */
function attackFolders(name: string, attempts: Attempts, attempt: (chance: Chance) => Promise<void>): void {
  attack(name, attempts, async (chance) => {
    for (const one of [good, bad]) {
      rmSync(one, { recursive: true, force: true });
      mkdirSync(one);
    }
    await attempt(chance);
  });
}

const sides = [3, 40, 100, 150];

/** An optimizer whose checkpoint takes between a few kilobytes and half a megabyte. */
function makeOptimizer(chance: Chance): Optimizer {
  const params = Array.from({ length: chance.integer(1, 4) }, (_, i) => {
    const one = new Parameter({ name: `w${i}`, shape: [chance.pick(sides), chance.pick(sides)] });
    one.data.set(gaussian(one.size, i));
    one.grad.set(gaussian(one.size, i + 10));
    return one;
  });
  return new Muon(params, { device: 'cpu', coefficients: 'muon', steps: 1 });
}

/** Makes saves to a file fail, of which the folder is there. Returns what ends that. */
type Fault = (chance: Chance, file: string, size: number) => () => void;

/** What lies in a folder; nothing where it is none. */
function contentsOf(where: string): [string, string][] {
  if (!existsSync(where) || !statSync(where).isDirectory()) return [];
  return readdirSync(where).map((name) => [name, readFileSync(path.join(where, name), 'latin1')]);
}

function attackSaves(name: string, sizes: Attempts, message: RegExp, fault: Fault): void {
  attackFolders(name, sizes, async (chance) => {
    using optimizer = makeOptimizer(chance);
    const [safe, file] = [good, bad].map((where) => path.join(where, 'run.safetensors')) as [string, string];
    await optimizer.save(safe);
    const mend = fault(chance, file, statSync(safe).size);
    try {
      const [held, lies] = [digest(optimizer), contentsOf(bad)];
      expect(await refusal(() => optimizer.save(file), 'ERR_CHECKPOINT')).toMatch(message);
      expect(digest(optimizer)).toBe(held);
      expect(contentsOf(bad)).toEqual(lies);
      expect((await optimizer.step()).applied).toBe(true);
    } finally {
      mend();
    }
    await checkSaves(optimizer, safe);
  });
}

/** The optimizer saves to a good disk and loads from it, as if nothing had been. */
async function checkSaves(optimizer: Optimizer, safe: string): Promise<void> {
  const held = digest(optimizer);
  await optimizer.save(safe);
  await optimizer.step();
  await optimizer.load(safe);
  expect(digest(optimizer)).toBe(held);
  expect(readdirSync(good)).toEqual(['run.safetensors']);
}

const older = (file: string) => writeFileSync(file, 'older');

function mount(where: string, options: string): () => void {
  execFileSync('mount', ['-t', 'tmpfs', '-o', options, 'tmpfs', where], { stdio: 'pipe' });
  return () => execFileSync('umount', [where]);
}

const isRoot = process.getuid?.() === 0;
/** Runs something as a user for whom permissions count. They do not for root. */
const nobody = 65_534;
const dropRights = () => (isRoot ? process.seteuid!(nobody) : undefined);
const regainRights = () => (isRoot ? process.seteuid!(0) : undefined);

const page = 4096;
if (mounts()) {
  attackSaves('a disk that is full', { small: 5, large: 300 }, /^Cannot write .*ENOSPC/, (chance, file, size) => {
    // Pages for a part of the new file, or no number for one more file.
    const free = chance.integer(0, Math.floor((size - 1) / page));
    const end = mount(bad, chance.happens(0.2) ? 'nr_inodes=2' : `size=${page * (1 + free)}`);
    older(file);
    return end;
  });
  attackSaves('a disk that is read-only', { small: 2, large: 100 }, /^Cannot write .*EROFS/, (_, file) => {
    const end = mount(bad, 'size=64k');
    older(file);
    execFileSync('mount', ['-o', 'remount,ro', bad]);
    return end;
  });
} else {
  for (const name of ['full', 'read-only']) skipAttack(`a disk that is ${name}`, 'only root may mount one');
}

attackSaves(
  'a folder that may not be written to',
  { small: 3, large: 200 },
  /^Cannot write .*EACCES/,
  (chance, file) => {
    if (chance.happens(0.5)) older(file);
    chmodSync(bad, 0o555);
    dropRights();
    return () => {
      regainRights();
      chmodSync(bad, 0o755);
    };
  },
);

attackSaves('a folder that is gone', { small: 3, large: 200 }, /^Cannot write .*(ENOENT|ENOTDIR|ELOOP)/, (chance) => {
  rmSync(bad, { recursive: true });
  chance.pick([
    () => undefined,
    () => writeFileSync(bad, 'a file'),
    () => symlinkSync('bad', bad),
    () => symlinkSync('nowhere', bad),
  ])();
  return () => rmSync(bad, { force: true });
});

const limit = 'a limit of file size';
const shortage = 'memory is short';
if (process.platform === 'linux') {
  const servant = new Servant<Task, Answer>('limits', '100', '200');
  const afterwards = () => servant.end();
  attackFolders(limit, { small: 3, large: 300, afterwards }, async (chance) => {
    const file = path.join(bad, 'run.safetensors');
    if (chance.happens(0.5)) older(file);
    const lies = contentsOf(bad);
    const bytes = chance.integer(0, 160_000);
    expect(await servant.ask({ limit: 'fsize', bytes, call: 'save', file })).toEqual({
      outcome: expect.stringMatching(/^ERR_CHECKPOINT: Cannot write .*EFBIG/) as string,
      isUnchanged: true,
    });
    expect(contentsOf(bad)).toEqual(lies);
    using optimizer = makeLimited([100, 200]);
    await optimizer.save(file);
    expect(await servant.ask({ limit: 'fsize', bytes, call: 'load', file })).toMatchObject({ outcome: 'done' });
  });

  // Its calls take up to 50 megabytes. With less than some 3, Node itself does not live.
  const large = new Servant<Task, Answer>('limits', '500', '8000');
  let [done, ended] = [0, 0];
  attackFolders(
    shortage,
    {
      small: 1,
      large: 100,
      note: () => `${done} calls had enough; Node itself had not, and ended, ${ended} times`,
      afterwards: () => large.end(),
    },
    async (chance) => {
      const file = path.join(good, 'run.safetensors');
      await large.ask({ limit: 'as', bytes: 2 ** 40, call: 'save', file });
      const call = chance.pick(['save', 'load', 'state', 'step'] as const);
      const bytes = chance.integer(4e6, 40e6);
      const answer = await large.ask({ limit: 'as', bytes, call, file }).catch((error: unknown) => {
        // What a call leaves may be too little for the engine's own heap, with which no addon can help.
        if (String(error).includes('JavaScript heap out of memory')) return undefined;
        throw error;
      });
      if (answer === undefined) ended++;
      else if (answer.outcome === 'done') done++;
      else {
        expect([call, answer]).toEqual([
          call,
          { outcome: expect.stringMatching(/^ERR_OUT_OF_MEMORY/) as string, isUnchanged: true },
        ]);
      }
      await large.ask({ limit: 'as', bytes: 2 ** 40, call: 'save', file });
      expect(readdirSync(good)).toEqual(['run.safetensors']);
    },
  );
} else {
  for (const name of [limit, shortage]) skipAttack(name, 'only Linux limits a process that runs');
}

let survived = 0;
attackFolders(
  'a folder that vanishes during a save',
  { small: 5, large: 300, note: () => `${survived} saves had ended before` },
  async (chance) => {
    using optimizer = makeOptimizer(chance);
    const held = digest(optimizer);
    const saving = optimizer.save(path.join(bad, 'run.safetensors')).then(
      () => {
        survived++;
      },
      (error: unknown) => error,
    );
    for (let turns = chance.integer(0, 200); turns > 0; turns--) await new Promise(setImmediate);
    rmSync(bad, { recursive: true, force: true, maxRetries: 10 });
    const error = await saving;
    if (error !== undefined) expect(error).toMatchObject({ name: 'RootError', code: 'ERR_CHECKPOINT' });
    expect(digest(optimizer)).toBe(held);
    await checkSaves(optimizer, path.join(good, 'run.safetensors'));
  },
);

attackFolders('a file that may not be read', { small: 2, large: 100 }, async (chance) => {
  using optimizer = makeOptimizer(chance);
  const safe = path.join(good, 'run.safetensors');
  await optimizer.save(safe);
  await optimizer.step();
  const held = digest(optimizer);
  const [hidden, mode] = chance.pick([
    [safe, 0o644],
    [good, 0o755],
  ]);
  chmodSync(hidden, 0);
  dropRights();
  try {
    expect(await refusal(() => optimizer.load(safe), 'ERR_CHECKPOINT')).toMatch(/^Cannot read .*EACCES/);
    expect(digest(optimizer)).toBe(held);
  } finally {
    regainRights();
    chmodSync(hidden, mode);
  }
  await checkSaves(optimizer, safe);
});

function mounts(): boolean {
  const probe = mkdtempSync(path.join(tmpdir(), 'root-optimizer-probe-'));
  try {
    mount(probe, 'size=64k')();
    return true;
  } catch {
    return false;
  } finally {
    rmSync(probe, { recursive: true });
  }
}
