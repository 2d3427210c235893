import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { type Call, makeBusy } from './programs/calls.js';
import type { Task } from './programs/threads.js';
import { attack, isLarge, Servant, startProgram } from './support.js';

const folder = mkdtempSync(path.join(tmpdir(), 'root-optimizer-workers-'));
const file = path.join(folder, 'run.safetensors');
const calls: readonly Call[] = ['step', 'save', 'load', 'function'];
beforeAll(() => makeBusy().save(file));
afterAll(() => rmSync(folder, { recursive: true }));

/** The file is whole, and the next save leaves nothing but it. */
async function checkFile(): Promise<void> {
  using optimizer = makeBusy();
  expect((await optimizer.load(file)).step).toBe(0);
  await optimizer.save(file);
  expect(readdirSync(folder)).toEqual(['run.safetensors']);
}

const servant = new Servant<Task, number>('threads');
/** Temporary files of threads. The process that they were of has to end before a save removes them. */
let abandoned = 0;
/** Megabytes that were resident after each attempt. */
const resident: number[] = [];
/** Attempts after which the process has come to its usual size. */
const warm = 100;

attack(
  'a thread terminated in mid-call takes nothing with it',
  {
    small: 10,
    large: 500,
    note: () => {
      const [early, late] = [resident[Math.min(warm, resident.length - 1)]!, resident.at(-1)!];
      return `${early} MB resident, at the end ${late} MB; ${abandoned} temporary files until the process ended`;
    },
    afterwards: async () => {
      abandoned = readdirSync(folder).length - 1;
      await servant.end();
      await checkFile();
      if (isLarge) expect(resident.at(-1)! - resident[warm]!).toBeLessThan(100);
    },
  },
  async (chance) => {
    const after = chance.pick([0, chance.next() * 5, chance.next() * 40]);
    const answer = await servant.ask({ call: chance.pick(calls), file, after });
    resident.push(Math.round(answer / 1e6));
  },
);

attack(
  'a process that exits in mid-call ends as it says',
  { small: 5, large: 200, afterwards: checkFile },
  async (chance) => {
    const status = chance.integer(0, 100);
    const after = chance.pick([0, chance.integer(1, 20)]);
    const { ended } = startProgram('exits', chance.pick(calls), file, String(after), String(status));
    expect(await ended).toEqual({ status, signal: null, stderr: '' });
  },
);
