import type { DeviceReport as NativeReport, Precision } from '../binding.js';
import type { AddonReport } from './addon-file.js';
import { addon, addonReport, guard } from './binding.js';
import { expected, RootError } from './errors.js';
import { integer, oneOf, type Rule } from './validate.js';

export type { Precision };

/** What this machine and the addon offer. */
export interface DeviceReport extends NativeReport {
  addon: AddonReport;
}

/**
 * The device to compute on.
 *
 * - `cuda`: the first CUDA device; an error where there is none.
 * - `auto`: the first CUDA device that can be used, else the CPU.
 */
export type Device = 'auto' | 'cpu' | 'cuda' | `cuda:${number}`;

/** The device that an optimizer or a function runs on, and why it was chosen. */
export interface DeviceInfo {
  readonly name: 'cpu' | `cuda:${number}`;
  readonly description: string;
  readonly reason: string;
}

let report: NativeReport | undefined;

/**
 * Returns what this machine offers. `cuda.reason` says why there is no more. The addon is asked once per process.
 * @throws RootError ERR_ADDON_MISSING where there is no addon, or where it does not load
 */
export function devices(): DeviceReport {
  report ??= guard(() => addon().devices());
  return { ...structuredClone(report), addon: { ...addonReport() } };
}

export const checkDevice: Rule<Device> = (device, name) => {
  if (typeof device !== 'string' || !/^(auto|cpu|cuda(:\d+)?)$/.test(device)) {
    throw expected(name, 'one of "auto", "cpu", "cuda", "cuda:N"', device);
  }
  return device as Device;
};

/** @throws RootError ERR_DEVICE_UNAVAILABLE with the reason */
export function resolveDevice(device: Device): DeviceInfo {
  const { cpu, cuda } = devices();
  const onCpu = (reason: string) => Object.freeze({ name: 'cpu', description: cpu.description, reason } as const);
  if (device === 'cpu') return onCpu('asked for');
  const candidates = device.includes(':') ? cuda.devices.filter((one) => one.name === device) : cuda.devices;
  const obstacles: string[] = [];
  for (const { name, description } of device === 'auto' ? candidates : candidates.slice(0, 1)) {
    const obstacle = guard(() => addon().deviceObstacle(name));
    if (obstacle === null) {
      const reason = device !== 'auto' ? 'asked for' : ['the first CUDA device', ...obstacles].join('; ');
      return Object.freeze({ name, description, reason });
    }
    obstacles.push(`${name}: ${obstacle}`);
  }
  const missing =
    cuda.reason ??
    `there ${cuda.devices.length === 1 ? 'is' : 'are'} ${cuda.devices.map((one) => one.name).join(', ')}`;
  const reason = obstacles.length > 0 ? obstacles.join('; ') : missing;
  if (device === 'auto') return onCpu(reason);
  throw new RootError('ERR_DEVICE_UNAVAILABLE', `Expected device "${device}" to be available: ${reason}`);
}

export const checkThreads = integer(0, 1024);

export const checkPrecision = oneOf('auto', 'float16', 'bfloat16', 'bfloat16x3', 'float32');

/**
 * Returns the precision of the products on a device. `auto` is float16 on CUDA. On the CPU it is the fastest one whose
 * errors are within 5e-4: bfloat16x3 on matrix units, else float32.
 * @throws RootError ERR_INVALID_ARGUMENT where the device does not multiply what was asked for
 */
export function precisionOn(device: string, asked: 'auto' | Precision): Precision {
  if (device !== 'cpu') {
    if (asked !== 'bfloat16x3') return asked === 'auto' ? 'float16' : asked;
    throw expected('precision', 'one that CUDA computes in: float16, bfloat16, float32', asked);
  }
  const { precisions, instructionSet } = devices().cpu;
  const has = (one: Precision) => precisions.some((other) => other === one);
  if (asked === 'auto') return has('bfloat16x3') ? 'bfloat16x3' : 'float32';
  if (has(asked)) return asked;
  const why = {
    float16: 'processors do not multiply it',
    bfloat16: `${instructionSet} has no instructions for it, as AMX and AVX512_BF16 have`,
    bfloat16x3: `${instructionSet} has no matrix units, as AMX has`,
    float32: '',
  }[asked];
  throw expected('precision', `one that this processor computes in (${precisions.join(', ')}; ${why})`, asked);
}
