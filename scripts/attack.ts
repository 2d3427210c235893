import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { runMain } from './common/command.js';
import { formatTable } from './common/tables.js';

const help = `Attacks checkpoints and steps at length, and prints a table of what was found wrong.

  npm run attack                        all attacks of test/attack
  npm run attack -- mutations kills     those of some files
  ATTACK_SEED=9 npm run attack          the same from another seed on

A failure names its seed, with which it comes first when it is repeated.`;

/** What an attack of test/attack found. */
export interface Row {
  readonly attack: string;
  readonly attempts: number;
  /** The number of attempts that found something wrong. */
  readonly wrong: number;
  readonly seconds: number;
  readonly note: string;
}

const root = path.join(__dirname, '..');

/** Runs each file by itself: a crash ends no other attack, and nothing else disturbs what is measured. */
function main(): void {
  const asked = process.argv.slice(2);
  if (asked.includes('--help')) {
    console.log(help);
    return;
  }
  const all = readdirSync(path.join(root, 'test/attack')).filter((name) => name.endsWith('.test.ts'));
  const files = all.filter((name) => asked.length === 0 || asked.includes(name.replace('.test.ts', '')));
  if (files.length === 0) throw new Error(`Expected some of ${all.join(', ')}, got ${asked.join(', ')}`);
  const folder = mkdtempSync(path.join(tmpdir(), 'root-optimizer-attack-'));
  const rows = path.join(folder, 'rows.jsonl');
  try {
    for (const name of files) {
      const jest = [path.join('node_modules', '.bin', 'jest'), '--runInBand', '--selectProjects', 'addon'];
      const env = { ...process.env, ATTACK: 'large', ATTACK_ROWS: rows };
      const options = ['--runTestsByPath', path.join('test/attack', name)];
      const { status } = spawnSync(process.execPath, [...jest, ...options], { cwd: root, stdio: 'inherit', env });
      if (status !== 0) process.exitCode = 1;
    }
    console.log(`\n${tableOf(existsSync(rows) ? readFileSync(rows, 'utf8') : '')}`);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** @param lines rows as JSON, of which an attack's last one counts */
function tableOf(lines: string): string {
  const parsed = lines
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line) as Row);
  const rows = [...new Map(parsed.map((row) => [row.attack, row])).values()];
  const cells = rows.map(({ attack, attempts, wrong, seconds, note }) => [
    ...[attack, attempts.toLocaleString('en'), String(wrong), `${seconds.toFixed(1)} s`, note],
  ]);
  return formatTable([['attack', 'attempts', 'wrong', 'time', 'note'], ...cells], (column) => column % 4 === 0);
}

if (require.main === module) runMain(main);
