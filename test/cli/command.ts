import { spawnSync } from 'node:child_process';
import path from 'node:path';

export const root = path.join(__dirname, '..', '..');

export interface Ended {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs `root-optimizer` from the sources. A variable that is undefined is not set. */
export function cli(args: readonly string[], env: NodeJS.ProcessEnv = {}, flags: readonly string[] = []): Ended {
  const command = [...flags, '--import', 'tsx', path.join('lib', 'cli', 'main.ts'), ...args];
  return spawnSync(process.execPath, command, { cwd: root, encoding: 'utf8', env: { ...process.env, ...env } });
}
