#!/usr/bin/env node
import { spawnSync } from 'node:child_process';
import path from 'node:path';
import { buildFolder, isClone, packageRoot, version } from '../addon-file.js';
import { type DeviceReport, devices } from '../devices.js';
import { messageOf, printable } from '../errors.js';
import { nearest } from '../validate.js';
import { calibrateCommand } from './calibrate.js';
import { doctorCommand } from './doctor.js';
import { inspectCommand } from './inspect.js';
import { parseCommand, UsageError } from './usage.js';

const help = `Usage: root-optimizer <command>

  build            build the native addon for this machine
  calibrate        fit the iteration's coefficients to a checkpoint
  devices          print what this machine offers
  doctor           find out why the addon does not work here, and what to do about it
  inspect          print what a safetensors file holds: tensors, norms, thresholds, spectra
  --help           print this; after a command, its options
  --version        print the version

The status is 0 where all is well, 1 where there was a problem and 2 where the command was used wrongly.`;

const commands: Readonly<Record<string, (args: string[]) => number | Promise<number>>> = {
  build: buildCommand,
  calibrate: calibrateCommand,
  devices: devicesCommand,
  doctor: doctorCommand,
  inspect: inspectCommand,
};

function main([command, ...args]: string[]): number | Promise<number> {
  switch (command) {
    case '--help':
    case '-h':
    case 'help':
      console.log(help);
      return 0;
    case '--version':
    case '-v':
      console.log(version());
      return 0;
    case undefined:
      console.error(help);
      return 2;
    default: {
      const known = Object.hasOwn(commands, command) ? commands[command] : undefined;
      if (known !== undefined) return known(args);
      const near = nearest(command, Object.keys(commands));
      const hint = near === undefined ? '' : ` Did you mean ${near}?`;
      console.error(`Expected a command of root-optimizer, got "${printable(command)}".${hint}\n\n${help}`);
      return 2;
    }
  }
}

function buildCommand(args: string[]): number {
  const script = path.join(packageRoot, 'scripts', 'build.mjs');
  const into = isClone ? [] : ['--into', buildFolder()];
  return spawnSync(process.execPath, [script, ...into, ...args], { stdio: 'inherit' }).status ?? 1;
}

function devicesCommand(args: string[]): number {
  const { values, positionals } = parseCommand(args, {
    json: { type: 'boolean' },
    help: { type: 'boolean', short: 'h' },
  });
  if (positionals.length > 0) throw new UsageError(`Expected no argument but --json, got "${positionals[0]!}".`);
  if (values.help === true) {
    console.log('Usage: root-optimizer devices [--json]\n\nPrints what this machine offers.');
    return 0;
  }
  const report = devices();
  console.log(values.json === true ? JSON.stringify(report, null, 2) : describe(report));
  return 0;
}

function describe({ cpu, cuda, addon }: DeviceReport): string {
  const cores = `${cpu.physicalCores} physical ${cpu.physicalCores === 1 ? 'core' : 'cores'}`;
  const rows = [`cpu     ${cpu.description}: ${cores}, ${cpu.instructionSet}`];
  for (const { name, description, memoryBytes } of cuda.devices) {
    rows.push(`${name.padEnd(7)} ${description}: ${(memoryBytes / 2 ** 30).toFixed(1)} GiB`);
  }
  if (cuda.reason !== null) rows.push(`cuda    none: ${cuda.reason}`);
  rows.push(`addon   ${addon.path}: ${addon.reason}`);
  return rows.join('\n');
}

async function run(): Promise<void> {
  // A reader such as `head` may go before all is written.
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code === 'EPIPE') process.exit();
    throw error;
  });
  const args = process.argv.slice(2);
  try {
    process.exitCode = await main(args);
  } catch (error) {
    const isUsage = error instanceof UsageError;
    const hint = isUsage ? `\nroot-optimizer ${args[0]!} --help lists the options.` : '';
    console.error(`${messageOf(error)}${hint}`);
    process.exitCode = isUsage ? 2 : 1;
  }
}

void run();
