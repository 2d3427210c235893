import { createHash, randomBytes } from 'node:crypto';
import { readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { readdir, unlink } from 'node:fs/promises';
import { hostname } from 'node:os';
import path from 'node:path';

/*
 * A temporary file's name says whose it is: .root-<target>-<host>-<process>-<its start>-<random>.tmp. Target and host
 * are digests, so that the name is short whatever they are called.
 */

const digest = (text: string) => createHash('sha256').update(text).digest('hex').slice(0, 12);
const prefixOf = (target: string) => `.root-${digest(path.basename(target))}-${digest(hostname())}-`;

/** A name for a file that becomes `target`, in its folder. */
export function temporaryName(target: string): string {
  const name = `${prefixOf(target)}${process.pid}-${startOf(process.pid)}-${randomBytes(6).toString('hex')}.tmp`;
  return path.join(path.dirname(target), name);
}

/** Writes a text atomically: a failure leaves an older file of that name whole, and nothing besides. */
export function replaceFile(target: string, text: string): void {
  const temporary = temporaryName(target);
  try {
    writeFileSync(temporary, text, { flag: 'wx' });
    renameSync(temporary, target);
  } catch (error) {
    rmSync(temporary, { force: true });
    throw error;
  }
}

/** Removes what processes of this host that no longer run have left of their writing `target`. */
export async function removeAbandoned(target: string): Promise<void> {
  const folder = path.dirname(target);
  const prefix = prefixOf(target);
  const names = await readdir(folder).catch((): string[] => []);
  for (const name of names) {
    if (!name.startsWith(prefix)) continue;
    const [, id, start] = /^(\d+)-(\d+)-[0-9a-f]+\.tmp$/.exec(name.slice(prefix.length)) ?? [];
    if (id === undefined || isRunning(Number(id), Number(start))) continue;
    await unlink(path.join(folder, name)).catch(() => undefined);
  }
}

/** Whether the process of this number that began at this time runs. Numbers are used again. */
function isRunning(id: number, start: number): boolean {
  try {
    process.kill(id, 0);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ESRCH') return false;
  }
  const own = startOf(id);
  return own === 0 || start === 0 || own === start;
}

/** When a process began, in ticks since the machine did; 0 where the system does not say. */
function startOf(id: number): number {
  try {
    // The name of the program, in brackets, may contain anything.
    const fields = readFileSync(`/proc/${id}/stat`, 'latin1').replace(/^.*\)/s, '').trim().split(' ');
    return Number(fields[19]) || 0;
  } catch {
    return 0;
  }
}
