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

export const checkPrecision = oneOf('float16', 'bfloat16', 'float32');

/**
 * Returns the precision of the products on a device. The CPU has no float16. It has bfloat16 where its instructions do.
 */
export function precisionOn(device: string, asked: Precision): Precision {
  if (device !== 'cpu') return asked;
  return asked === 'bfloat16' && devices().cpu.precisions.includes(asked) ? asked : 'float32';
}
