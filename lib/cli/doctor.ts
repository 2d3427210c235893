import { checkAddon, checkCuda } from './doctor/addon.js';
import type { Check } from './doctor/check.js';
import { checkCache, checkMemory, checkNode, checkPlatform, checkVariables } from './doctor/machine.js';
import { checkTools } from './doctor/tools.js';
import { parseCommand, UsageError } from './usage.js';

const help = `Usage: root-optimizer doctor [--json]

Looks for what keeps the addon from working on this machine, and says what to do about it.

  --json  print what it finds as JSON
  --help  print this

It ends with status 1 where it finds a problem.`;

/** What `doctor --json` prints. */
interface Diagnosis {
  readonly well: boolean;
  readonly checks: readonly Check[];
}

/**
 * `root-optimizer doctor`.
 * @returns the exit status: 1 where there is a problem
 * @throws UsageError
 */
export function doctorCommand(args: string[]): number {
  const { values, positionals } = parseCommand(args, {
    json: { type: 'boolean' },
    help: { type: 'boolean', short: 'h' },
  });
  if (positionals.length > 0) throw new UsageError(`Expected no argument but --json, got "${positionals[0]!}".`);
  if (values.help === true) {
    console.log(help);
    return 0;
  }
  const diagnosis = diagnose();
  console.log(values.json === true ? JSON.stringify(diagnosis, null, 2) : describe(diagnosis));
  return diagnosis.well ? 0 : 1;
}

function diagnose(): Diagnosis {
  const { checks: ofAddon, report } = checkAddon();
  const isMissing = report === undefined;
  const checks = [
    ...[checkNode(), checkPlatform(), ...ofAddon, checkCuda(report), checkMemory(), checkCache(isMissing)],
    ...[...checkTools(isMissing), ...checkVariables()],
  ];
  return { well: checks.every(({ state }) => state !== 'problem'), checks };
}

function describe({ checks }: Diagnosis): string {
  const width = Math.max(...checks.map(({ name }) => name.length));
  const lines = checks.flatMap(({ name, state, found, remedy }) => {
    const line = `${state.padEnd(7)}  ${name.padEnd(width)}  ${found}`;
    return remedy === null ? [line] : [line, `${' '.repeat(9 + width)}  → ${remedy}`];
  });
  const problems = checks.filter(({ state }) => state === 'problem').length;
  const end = problems === 0 ? 'All is well.' : `${problems} ${problems === 1 ? 'problem' : 'problems'} found.`;
  return [...lines, '', end].join('\n');
}
