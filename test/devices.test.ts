import { AdamW, type Device, devices, Muon, Parameter } from '../lib/index.js';
import { devicesUnderTest, expectError } from './support.js';

const on = (device: Device) => {
  using optimizer = new AdamW([new Parameter({ name: 'w', shape: [2] })], { device });
  return optimizer.device;
};
const { cpu, cuda } = devices();

test('devices tells what there is, and why not more', () => {
  expect(cpu.physicalCores).toBeGreaterThan(0);
  expect(cpu.description).not.toBe('');
  const sets = ['amx', 'amx-emulated', 'avx512bf16', 'avx512', 'avx2', 'neon', 'baseline'];
  expect(sets).toContain(cpu.instructionSet);
  const count = sets.indexOf(cpu.instructionSet) < 2 ? 3 : cpu.instructionSet === 'avx512bf16' ? 2 : 1;
  expect(cpu.precisions).toEqual(['float32', 'bfloat16', 'bfloat16x3'].slice(0, count));
  expect(cuda.devices.length > 0).toBe(cuda.reason === null);
  cuda.devices.length = 0;
  cpu.physicalCores = 0;
  expect(devices().cpu.physicalCores).toBeGreaterThan(0);
});

test('an optimizer tells its device, and why that one', () => {
  expect(on('cpu')).toEqual({ name: 'cpu', description: cpu.description, reason: 'asked for' });
});

const hasCuda = devicesUnderTest().some((device) => device !== 'cpu');

(hasCuda ? test : test.skip)('CUDA computes in float16 by default, and not in bfloat16x3', async () => {
  const w = new Parameter({ name: 'w', shape: [2, 2] });
  using optimizer = new Muon([w], { device: 'cuda' });
  expect(optimizer.precision).toBe('float16');
  const call = () => new Muon([w], { device: 'cuda', precision: 'bfloat16x3' });
  await expectError(call, 'ERR_INVALID_ARGUMENT', 'Expected precision to be one that CUDA computes in');
});
const without = hasCuda ? test.skip : test;
const withCuda = hasCuda ? test : test.skip;

without('auto takes the CPU and keeps the reason; cuda throws it', async () => {
  const { reason } = devices().cuda;
  expect(on('auto')).toEqual({ name: 'cpu', description: cpu.description, reason });
  for (const device of ['cuda', 'cuda:0'] as const) {
    await expectError(
      () => on(device),
      'ERR_DEVICE_UNAVAILABLE',
      `Expected device "${device}" to be available: ${String(reason)}`,
    );
  }
});

withCuda('auto and cuda take the first device', async () => {
  expect(on('auto')).toMatchObject({ name: 'cuda:0', reason: 'the first CUDA device' });
  expect(on('cuda')).toMatchObject({ name: 'cuda:0', reason: 'asked for' });
  await expectError(
    () => on('cuda:99'),
    'ERR_DEVICE_UNAVAILABLE',
    /^Expected device "cuda:99" to be available: there (is|are) cuda:0/,
  );
});
