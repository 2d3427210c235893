import { accessSync, constants, statSync } from 'node:fs';
import path from 'node:path';

/** What `root-optimizer doctor` finds out about one thing. */
export interface Check {
  readonly name: string;
  /** `note`: something is not there that is not needed now. Only a `problem` ends the command with status 1. */
  readonly state: 'ok' | 'note' | 'problem';
  readonly found: string;
  /** What to do about it. */
  readonly remedy: string | null;
}

export function ok(name: string, found: string): Check {
  return { name, state: 'ok', found, remedy: null };
}

export function note(name: string, found: string, remedy: string): Check {
  return { name, state: 'note', found, remedy };
}

export function problem(name: string, found: string, remedy: string): Check {
  return { name, state: 'problem', found, remedy };
}

/** The value of a variable, or undefined where it is not set or empty. */
export function variable(name: string): string | undefined {
  const value = process.env[name];
  return value === '' ? undefined : value;
}

/** The first of these programs that is on the path. One with a slash in its name is a file. */
export function findProgram(...names: string[]): string | undefined {
  const folders = (process.env['PATH'] ?? '').split(path.delimiter).filter((folder) => folder !== '');
  return names
    .flatMap((name) => (name.includes('/') ? [path.resolve(name)] : folders.map((folder) => path.join(folder, name))))
    .find(isProgram);
}

function isProgram(file: string): boolean {
  try {
    accessSync(file, constants.X_OK);
    return statSync(file).isFile();
  } catch {
    return false;
  }
}

/** Compares versions such as 20.17 and 20.9.1, part by part. */
export function isAtLeast(version: string, least: string): boolean {
  const [own, other] = [version, least].map((text) => text.split('.').map(Number));
  for (const [i, part] of other!.entries()) {
    if ((own![i] ?? 0) !== part) return (own![i] ?? 0) > part;
  }
  return true;
}
