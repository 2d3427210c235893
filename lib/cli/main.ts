#!/usr/bin/env node
import { spawnSync } from 'node:child_process';
import path from 'node:path';
import { buildFolder, isClone, packageRoot, version } from '../addon-file.js';
import { type DeviceReport, devices } from '../devices.js';
import { messageOf } from '../errors.js';
import { calibrateCommand } from './calibrate.js';

const help = `Usage: root-optimizer <command>

  build            build the native addon for this machine; build --help prints its options
  calibrate        fit the iteration's coefficients to a checkpoint; calibrate --help prints its options
  devices          print what this machine offers; --json prints it as JSON
  --help           print this
  --version        print the version`;

function main([command, ...args]: string[]): number | Promise<number> {
  switch (command) {
    case 'build':
      return buildCommand(args);
    case 'calibrate':
      return calibrateCommand(args);
    case 'devices':
      return printDevices(args);
    case '--help':
    case '-h':
      console.log(help);
      return 0;
    case '--version':
    case '-v':
      console.log(version());
      return 0;
    case undefined:
      console.error(help);
      return 2;
    default:
      console.error(`Expected a command of root-optimizer, got "${command}".\n\n${help}`);
      return 2;
  }
}

function buildCommand(args: string[]): number {
  const script = path.join(packageRoot, 'scripts', 'build.mjs');
  const into = isClone ? [] : ['--into', buildFolder()];
  return spawnSync(process.execPath, [script, ...into, ...args], { stdio: 'inherit' }).status ?? 1;
}

function printDevices(args: string[]): number {
  const unknown = args.find((arg) => arg !== '--json');
  if (unknown !== undefined) {
    console.error(`Expected no argument but --json, got "${unknown}".`);
    return 2;
  }
  const report = devices();
  console.log(args.includes('--json') ? JSON.stringify(report, null, 2) : describe(report));
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
  try {
    process.exitCode = await main(process.argv.slice(2));
  } catch (error) {
    console.error(messageOf(error));
    process.exitCode = 1;
  }
}

void run();
