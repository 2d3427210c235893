import { spawnSync } from 'node:child_process';
import { closeSync, existsSync, openSync, readdirSync, readFileSync, readSync } from 'node:fs';
import path from 'node:path';
import type { DeviceReport } from '../../../binding.js';
import { type AddonReport, findAddon, platformName } from '../../addon-file.js';
import { cut, messageOf, printable } from '../../errors.js';
import { type Check, findProgram, ok, problem, variable } from './check.js';

/** Loads an addon in a process of its own, since one that is broken may end the process. */
const probe = `
  let addon;
  const tell = (found) => process.stdout.write('\\n' + JSON.stringify(found));
  try {
    addon = require(process.argv[1]);
    if (typeof addon.devices !== 'function') tell({ other: true });
  } catch (error) { tell({ refused: String(error.message) }); }
  if (typeof addon?.devices === 'function') {
    try { tell({ report: addon.devices() }); } catch (error) { tell({ failed: String(error.message) }); }
  }`;

interface Probed {
  readonly report?: DeviceReport;
  /** Why it did not load. */
  readonly refused?: string;
  /** Why it does not tell the devices. */
  readonly failed?: string;
  /** Whether it is some other addon. */
  readonly other?: boolean;
}

/** @returns the checks of the addon and, where it loads, what it found on this machine */
export function checkAddon(): { checks: Check[]; report: DeviceReport | undefined } {
  let found: AddonReport;
  try {
    found = findAddon();
  } catch (error) {
    const own = `@root-optimizer/${platformName()}`;
    const remedy = `npm install ${own} or, where there is no such package: npx root-optimizer build`;
    return { checks: [problem('addon', messageOf(error).split('; run:')[0]!, remedy)], report: undefined };
  }
  const file = printable(found.path);
  if (!existsSync(found.path)) {
    const text = `ROOT_OPTIMIZER_ADDON names ${file}, and there is no such file`;
    return {
      checks: [problem('addon', text, 'unset ROOT_OPTIMIZER_ADDON, or name a file that is there')],
      report: undefined,
    };
  }
  const probed = load(found.path);
  if (probed.report !== undefined) {
    const { report } = probed;
    return { checks: [ok('addon', `${file}: ${found.reason}`), checkInstructions(report)], report };
  }
  if (probed.failed !== undefined) {
    const isSet = probed.failed.includes('ROOT_OPTIMIZER_INSTRUCTION_SET');
    const check = isSet
      ? problem('instruction set', printable(cut(probed.failed)), 'unset ROOT_OPTIMIZER_INSTRUCTION_SET')
      : problem('addon', `${file}: ${printable(cut(probed.failed))}`, rebuild(found));
    return { checks: isSet ? [ok('addon', `${file}: ${found.reason}`), check] : [check], report: undefined };
  }
  return { checks: [refusal(found, probed)], report: undefined };
}

function load(file: string): Probed {
  const { stdout, signal, status, stderr } = spawnSync(process.execPath, ['-e', probe, file], { encoding: 'utf8' });
  const line = stdout.trimEnd().split('\n').at(-1) ?? '';
  if (line.startsWith('{')) return JSON.parse(line) as Probed;
  const end = signal ?? `status ${String(status)}`;
  return {
    refused: `it ended the process that loaded it (${end})${stderr === '' ? '' : `: ${stderr.split('\n')[0]!}`}`,
  };
}

function refusal(found: AddonReport, { refused = '', other = false }: Probed): Check {
  const file = printable(found.path);
  if (other) return problem('addon', `${file} is some other addon`, rebuild(found));
  const made = platformOf(found.path);
  if (made === undefined) return problem('addon', `${file} is no native addon`, rebuild(found));
  if (made !== `${process.platform}-${process.arch}`) {
    const text = `${file} is for ${made}, and this is ${process.platform}-${process.arch}`;
    const remedy =
      found.source === 'environment'
        ? rebuild(found)
        : 'remove node_modules and install on this machine; npm chooses the addon by the machine that it runs on';
    return problem('addon', text, remedy);
  }
  const [, library] = /version [`'](GLIBC(?:XX)?_[\d.]+)' not found/.exec(refused) ?? [];
  const reason = printable(cut(refused.split('\n')[0]!));
  const why = library === undefined ? reason : `it needs ${library}, which this system is too old for`;
  return problem('addon', `${file} does not load: ${why}`, rebuild(found));
}

function rebuild({ source }: AddonReport): string {
  if (source === 'environment') return 'unset ROOT_OPTIMIZER_ADDON, or name an addon that was built for this machine';
  return `npx root-optimizer build${source === 'build' ? ' --force' : ''}`;
}

/** The platform that a file of machine code is for, by its first bytes; undefined for any other file. */
function platformOf(file: string): string | undefined {
  const head = Buffer.alloc(20);
  try {
    const handle = openSync(file, 'r');
    try {
      readSync(handle, head);
    } finally {
      closeSync(handle);
    }
  } catch {
    return undefined;
  }
  if (head.readUInt32BE(0) === 0x7f454c46) {
    const machine = head.readUInt16LE(18);
    return `linux-${({ 62: 'x64', 183: 'arm64', 40: 'arm', 3: 'ia32' } as Record<number, string>)[machine] ?? 'other'}`;
  }
  if (head.readUInt32LE(0) === 0xfeedfacf) return `darwin-${head.readUInt32LE(4) === 0x0100000c ? 'arm64' : 'x64'}`;
  return head.toString('latin1', 0, 2) === 'MZ' ? 'win32' : undefined;
}

function checkInstructions({ cpu }: DeviceReport): Check {
  const forced = variable('ROOT_OPTIMIZER_INSTRUCTION_SET');
  const text = `${cpu.description}: ${cpu.instructionSet}`;
  if (forced !== undefined) return ok('instruction set', `${text}, as ROOT_OPTIMIZER_INSTRUCTION_SET says`);
  if (cpu.instructionSet !== 'baseline' || process.arch !== 'x64') return ok('instruction set', text);
  const remedy = 'use a processor with AVX2, or pass its flags on to the virtual machine; steps are slow without';
  return { name: 'instruction set', state: 'note', found: `${text}, vectors of 128 bits`, remedy };
}

/**
 * @param report what the addon found
 * @param root the folder that stands for /, for tests
 */
export function checkCuda(report: DeviceReport | undefined, root = '/'): Check {
  if (report === undefined) return { name: 'cuda', state: 'note', found: 'not known without an addon', remedy: null };
  const { devices, reason } = report.cuda;
  if (devices.length > 0) return ok('cuda', devices.map((one) => `${one.name}: ${one.description}`).join('; '));
  const text = reason ?? 'there is no device';
  if (text.includes('driver is too old')) {
    return problem('cuda', text, "install a newer NVIDIA driver from nvidia.com; until then use device: 'cpu'");
  }
  const hasDriver = ['proc/driver/nvidia/version', 'dev/nvidiactl', 'dev/dxg', 'dev/nvmap'].some((file) =>
    existsSync(path.join(root, file)),
  );
  if (!hasDriver && hasGpu(root)) {
    return problem('cuda', 'there is an NVIDIA GPU, but no NVIDIA driver', 'install the NVIDIA driver for this system');
  }
  if (!hasDriver) return ok('cuda', `${text}; the CPU is used`);
  if (text.includes('no CUDA backend')) {
    const nvcc = findProgram(variable('CUDACXX') ?? 'nvcc', '/usr/local/cuda/bin/nvcc');
    return nvcc === undefined
      ? problem(
          'cuda',
          `${text}, and there is no CUDA toolkit`,
          'install a CUDA toolkit from version 12.0 on, then: npx root-optimizer build --cuda',
        )
      : problem('cuda', `${text}, but there is a driver`, 'npx root-optimizer build --cuda');
  }
  const remedy = "look at what nvidia-smi says; in a container, run it with --gpus all; else use device: 'cpu'";
  return problem('cuda', text, remedy);
}

/** Whether a graphics or compute device of NVIDIA's is on the bus. */
function hasGpu(root: string): boolean {
  const folder = path.join(root, 'sys/bus/pci/devices');
  const read = (device: string, file: string) => readFileSync(path.join(folder, device, file), 'utf8').trim();
  try {
    return readdirSync(folder).some((one) => read(one, 'vendor') === '0x10de' && read(one, 'class').startsWith('0x03'));
  } catch {
    return false;
  }
}
