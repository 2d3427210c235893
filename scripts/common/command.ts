import { writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { devices } from '../../lib/devices.js';
import { messageOf } from '../../lib/errors.js';

/** Runs the main function of a script. An error is told by its message alone, and the script ends with status 1. */
export function runMain(main: () => void | Promise<void>): void {
  const running = (async () => main())();
  running.catch((error: unknown) => {
    console.error(messageOf(error));
    process.exitCode = 1;
  });
}

/**
 * The options of a command line, each of which takes a value.
 * @param help printed for --help
 * @returns undefined where help was asked for
 */
export function readOptions<Name extends string>(
  help: string,
  names: readonly Name[],
): Readonly<Partial<Record<Name, string>>> | undefined {
  const text = { type: 'string' } as const;
  const known = Object.fromEntries(names.map((name) => [name, text]));
  const { values } = parseArgs({ options: { ...known, help: { type: 'boolean' } } });
  if (values.help !== true) return values as Partial<Record<Name, string>>;
  console.log(help);
  return undefined;
}

/** What benchmarks measure where no shapes are given. */
export const SHAPES = '128x128,128x512,256x1024,512x512,768x768,768x3072,1024x1024,1024x4096';

/** A list of shapes such as 256x1024. */
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

/** A list of numbers of threads; 1 and the physical cores if absent. */
export function parseThreads(text: string | undefined): number[] {
  return (
    text?.split(',').map((one) => parsePositive(one, '--threads')) ?? [...new Set([1, devices().cpu.physicalCores])]
  );
}

/** A list of names, each one of `choices`. */
export function parseNames<const T extends string>(text: string, choices: readonly T[], option: string): T[] {
  return text.split(',').map((name) => {
    const found = choices.find((choice) => choice === name);
    if (found === undefined) throw new Error(`Expected ${option} to name some of ${choices.join(', ')}, got "${name}"`);
    return found;
  });
}

/** Writes figures with their date, where a file is given. */
export function writeFigures(file: string | undefined, figures: object): void {
  if (file === undefined) return;
  writeFileSync(file, `${JSON.stringify({ date: new Date().toISOString(), ...figures }, null, 2)}\n`);
}
