import { writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { devices } from '../../lib/devices.js';
import { messageOf } from '../../lib/errors.js';

/** Runs the main function of a script. An error prints only its message and ends the script with status 1. */
export function runMain(main: () => void | Promise<void>): void {
  const running = (async () => main())();
  running.catch((error: unknown) => {
    console.error(messageOf(error));
    process.exitCode = 1;
  });
}

/**
 * Reads the options of a command line. Each option takes a value.
 * @param help the text that --help prints
 * @returns undefined where help was asked for
 */
export function readOptions<Name extends string>(
  help: string,
  names: readonly Name[],
  args: readonly string[] = process.argv.slice(2),
): Readonly<Partial<Record<Name, string>>> | undefined {
  const text = { type: 'string' } as const;
  const known = Object.fromEntries(names.map((name) => [name, text]));
  const { values } = parseArgs({ args: [...args], options: { ...known, help: { type: 'boolean' } } });
  if (values.help !== true) return values as Partial<Record<Name, string>>;
  console.log(help);
  return undefined;
}

/** The shapes that benchmarks measure by default. */
export const SHAPES = '128x128,128x512,256x1024,512x512,768x768,768x3072,1024x1024,1024x4096';

/** Reads a list of shapes such as 256x1024. */
export function parseShapes(text: string): [rows: number, columns: number][] {
  return text.split(',').map((one) => {
    const [, rows, columns] = /^([1-9]\d*)x([1-9]\d*)$/.exec(one.trim()) ?? [];
    if (columns === undefined) throw new Error(`Expected a shape such as 256x1024, got "${one}"`);
    return [Number(rows), Number(columns)];
  });
}

export function parsePositive(text: string, name: string): number {
  if (!/^[1-9]\d*$/.test(text)) throw new Error(`Expected ${name} to be a positive whole number, got "${text}"`);
  return Number(text);
}

/** Reads a list of numbers of threads. Without one it returns 1 and the physical cores. */
export function parseThreads(text: string | undefined): number[] {
  return (
    text?.split(',').map((one) => parsePositive(one, '--threads')) ?? [...new Set([1, devices().cpu.physicalCores])]
  );
}

/** Reads a list of names, each one of `choices`. */
export function parseNames<const T extends string>(text: string, choices: readonly T[], option: string): T[] {
  return text.split(',').map((name) => {
    const found = choices.find((choice) => choice === name);
    if (found === undefined) throw new Error(`Expected ${option} to name some of ${choices.join(', ')}, got "${name}"`);
    return found;
  });
}

/** Writes figures and the date to a file, if one is given. */
export function writeFigures(file: string | undefined, figures: object): void {
  if (file === undefined) return;
  writeFileSync(file, `${JSON.stringify({ date: new Date().toISOString(), ...figures }, null, 2)}\n`);
}
