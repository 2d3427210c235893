import { existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { bits } from '../support.js';
import { makeTrainee, runTraining } from './programs/trainees.js';
import { attack, digest, startProgram, wait } from './support.js';

const folders = ['saves', 'trains'].map((name) => mkdtempSync(path.join(tmpdir(), `root-optimizer-${name}-`)));
const [saved, trained] = folders.map((folder) => path.join(folder, 'run.safetensors')) as [string, string];
afterAll(() => {
  for (const folder of folders) rmSync(folder, { recursive: true });
});

const temporaryFiles = () => readdirSync(path.dirname(saved)).filter((name) => name.endsWith('.tmp'));

/** What the file held when the last program was killed. */
let held: string | undefined;
let [abandoned, unsaved] = [0, 0];

attack(
  'a process killed while it trains and saves leaves the last or the next checkpoint whole',
  {
    small: 8,
    large: 160,
    note: () => `${abandoned} temporary files abandoned and removed, ${unsaved} kills before the first save had ended`,
    afterwards: async () => {
      await makeTrainee(0).save(saved);
      expect(readdirSync(path.dirname(saved))).toEqual(['run.safetensors']);
    },
  },
  async (chance, seed) => {
    const program = startProgram('saves', saved, String(seed));
    await program.nextLine();
    await wait(chance.next() * chance.pick([10, 100, 300]));
    program.process.kill('SIGKILL');
    const { signal, stderr } = await program.ended;
    expect([signal, stderr]).toEqual(['SIGKILL', '']);

    const { lines } = program;
    const last = lines.lastIndexOf('saved');
    const before = last < 0 ? held : lines[last - 1];
    const next = lines.slice(last + 1)[0];
    const count = temporaryFiles().length;
    if (count > 0) abandoned++;
    if (last < 0) unsaved++;
    // The first save of a program removes what former ones have left.
    expect(count).toBeLessThanOrEqual(last < 0 ? 2 : 1);
    if (!existsSync(saved)) {
      expect(before).toBeUndefined();
      return;
    }
    // The file is that of this program, or of a former one if this has not come to write its own.
    const found = await loadAny(seed);
    expect([before, next]).toContain(found);
    held = found;
  },
);

/** Loads the checkpoint into an optimizer of its kind, and returns the digest of what it held. */
async function loadAny(seed: number): Promise<string> {
  for (const kind of [seed, seed + 1, seed + 2]) {
    using optimizer = makeTrainee(kind);
    const loaded = await optimizer.load(saved).catch((error: unknown) => String(error));
    if (typeof loaded === 'string') {
      expect(loaded).toMatch('is not of this optimizer');
      continue;
    }
    expect(loaded.notes['digest']).toBe(digest(optimizer));
    return digest(optimizer);
  }
  throw new Error('The file is of no optimizer');
}

let reached = 0;

attack(
  'a training killed again and again ends as one that was never killed',
  {
    small: 4,
    large: 80,
    note: () => `${reached} steps`,
    afterwards: async () => {
      const [resumed, whole] = [await runTraining(trained, reached + 3), await runTraining(undefined, reached + 3)];
      expect(bits(resumed.data)).toBe(bits(whole.data));
      const names = readdirSync(path.dirname(trained)).sort();
      expect(names).toEqual(['run.safetensors', `run.safetensors.step-${reached + 2}`]);
    },
  },
  async (chance) => {
    const program = startProgram('trains', trained);
    await program.nextLine();
    await wait(chance.next() * 60);
    program.process.kill('SIGKILL');
    const { signal, stderr } = await program.ended;
    expect([signal, stderr]).toEqual(['SIGKILL', '']);
    // A step is printed before its checkpoint is written, so that the last one may be taken again.
    expect([reached, reached + 1]).toContain(Number(program.lines[0]));
    reached = Number(program.lines.at(-1));
  },
);
