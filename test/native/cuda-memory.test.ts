import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import koffi from 'koffi';
import { AdamW, orthogonalizeSync, Root, type RootOptions, train } from '../../lib/index.js';
import { createOptimizers } from '../../lib/adapters/jax.js';
import { deviceMemory } from '../../scripts/common/device-memory.js';
import {
  bits,
  devicesUnderTest,
  expectError,
  fillGradients,
  gaussian,
  isEmulated,
  parameters,
  relativeError,
  snapshot,
} from '../support.js';

const device = devicesUnderTest().find((one) => one !== 'cpu') ?? 'cuda';
const emulated = isEmulated(device);
const onCuda = devicesUnderTest().includes(device) ? describe : describe.skip;

onCuda("a thread's CUDA context", () => {
  test('is after every call what it was before, none to begin with', async () => {
    const driver = koffi.load(emulated ? process.env['ROOT_OPTIMIZER_ADDON']! : 'libcuda.so.1');
    const get = driver.func('int cuCtxGetCurrent(_Out_ void** context)') as (out: unknown[]) => number;
    const current = () => {
      const context: unknown[] = [undefined];
      return get(context) === 0 ? context[0] : 'no driver';
    };
    const before = null; // what this process began with
    expect(current()).toEqual(before);
    const model = parameters('w', [[6, 4], [5]]);
    const optimizer = new Root(model, { device });
    expect(current()).toEqual(before);
    await optimizer.step();
    const calls: (() => unknown)[] = [
      () => optimizer.stepSync(),
      () => optimizer.stateOf(model[0]!),
      () => orthogonalizeSync(gaussian(6), [2, 3], { device }),
    ];
    for (const call of calls) {
      call();
      expect(current()).toEqual(before);
    }
    optimizer.dispose();
    expect(current()).toEqual(before);
  });
});

onCuda('transfers', () => {
  test('parameters of many sizes, larger than a buffer too, arrive where they belong', () => {
    // A transfer buffer holds 4 Mi floats. Pieces of the third parameter share none, the small parameters share one.
    const shapes = [[3], [1], [9_000_001], [64], [65, 3], [2]];
    const model = parameters('w', shapes);
    const before = model.map((one) => one.data.slice());
    using optimizer = new AdamW(model, { device, lr: 0, weightDecay: 0 });
    fillGradients(1, model);
    optimizer.stepSync();
    model.forEach((one, i) => {
      expect(bits(one.data)).toBe(bits(before[i]!));
      const { expAvg } = optimizer.stateOf(one) as { expAvg: Float32Array };
      expect(
        relativeError(
          expAvg,
          one.grad.map((value) => value * 0.1),
        ),
      ).toBeLessThan(1e-6);
    });
  });

  test('data that are written to between steps count', () => {
    const [there, here] = [parameters('w', [[16, 16], [40]]), parameters('w', [[16, 16], [40]])];
    using onDevice = new Root(there, { device, precision: 'float32' });
    using onHost = new Root(here, { device: 'cpu' });
    for (let step = 1; step <= 6; step++) {
      fillGradients(step, there, here);
      for (const model of [there, here]) {
        if (step % 2 === 0) model[step % 4 === 0 ? 0 : 1]!.data[step] = 100 * step;
        if (step === 5) model[0]!.data = gaussian(256, 77);
      }
      onDevice.stepSync();
      onHost.stepSync();
      there.forEach((one, i) => {
        expect(relativeError(one.data, here[i]!.data)).toBeLessThan(1e-5);
      });
    }
  });

  test('checkpoints go from device to device', async () => {
    const folder = mkdtempSync(path.join(tmpdir(), 'root-optimizer-'));
    try {
      const file = path.join(folder, 'run.safetensors');
      const shapes = [[16, 24], [40]];
      const [first, second, third] = [parameters('w', shapes), parameters('w', shapes), parameters('w', shapes)];
      using onDevice = new Root(first, { device });
      using onHost = new Root(second, { device: 'cpu' });
      using manual = new Root(third, { device, hostSync: 'manual' });
      fillGradients(1, first);
      onDevice.stepSync();
      await onDevice.save(file);
      for (const [optimizer, model] of [
        [onHost, second],
        [manual, third],
      ] as const) {
        await optimizer.load(file);
        expect(snapshot(optimizer, model)).toEqual(snapshot(onDevice, first));
      }
      third[0]!.data.fill(0);
      await manual.readParameters();
      expect(bits(third[0]!.data)).toBe(bits(first[0]!.data));
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });
});

onCuda('hostSync: manual', () => {
  const options: RootOptions = { device, hostSync: 'manual' };

  test('is no mode for train, whose models fill the gradients of the host', async () => {
    const [parameter] = parameters('w', [[3, 4]]);
    using optimizer = new Root([parameter!], options);
    expect(optimizer.hostSync).toBe('manual');
    const model = { parameters: [parameter!], lossAndGradients: () => 1 };
    await expectError(
      () => train({ model, optimizer, batches: [1], steps: 1 }),
      'ERR_INVALID_ARGUMENT',
      "Expected the optimizer's hostSync to be 'step'",
    );
  });

  test('is no mode for adapters either, which write gradients on the host', async () => {
    class Leaf {
      readonly shape = [3, 4];
      readonly dtype = 'float32';
      readonly ref = this;
      dataSync = () => new Float32Array(12);
    }
    const { root } = createOptimizers({ numpy: { array: () => new Leaf() } });
    await expectError(
      () => root(options).init({ w: new Leaf() }),
      'ERR_INVALID_ARGUMENT',
      "Expected the optimizer's hostSync to be 'step'",
    );
  });

  test('gradients may be computed on the device', async () => {
    const [there, twin] = [parameters('w', [[24, 40], [33]]), parameters('w', [[24, 40], [33]])];
    const before = there.map((one) => bits(one.data));
    using manual = new Root(there, options);
    using usual = new Root(twin, { device });
    const copies = deviceMemory(emulated);
    const memory = there.map((one) => manual.deviceMemory(one));
    expect(memory.every(({ data, grad }) => data > 0n && grad > 0n && data % 256n === 0n && grad % 256n === 0n)).toBe(
      true,
    );
    expect(new Set(memory.map(({ stream }) => stream)).size).toBe(1);
    for (let step = 1; step <= 3; step++) {
      fillGradients(step, twin);
      twin.forEach((one, i) => {
        copies.write(memory[i]!.grad, one.grad);
      });
      if (step === 2) await manual.step();
      else manual.stepSync();
      usual.stepSync();
      const found = new Float32Array(there[0]!.size);
      copies.read(found, memory[0]!.data);
      expect(bits(found)).toBe(bits(twin[0]!.data));
      expect(manual.deviceMemory(there[0]!)).toEqual(memory[0]);
    }
    expect(there.map((one) => bits(one.data))).toEqual(before);
    await manual.readParameters();
    expect(snapshot(manual, there)).toEqual(snapshot(usual, twin));
  });

  test('parameters that are written on the host go to the device when asked', async () => {
    const model = parameters('w', [[6, 4], [5]]);
    using optimizer = new Root(model, { ...options, lr: 0, weightDecay: 0, adamw: { lr: 0 } });
    model.forEach((one) => one.data.fill(3));
    optimizer.stepSync();
    await optimizer.readParameters();
    expect(model[0]!.data[0]).not.toBe(3);
    model.forEach((one) => one.data.fill(4));
    await optimizer.writeParameters();
    optimizer.stepSync();
    model.forEach((one) => one.data.fill(0));
    await optimizer.readParameters();
    model.forEach((one) => {
      expect(one.data.every((value) => value === 4)).toBe(true);
    });
  });

  test('zeroGrad reaches the device, and NaN there is found', async () => {
    const model = parameters('w', [[6, 4], [5]]);
    using optimizer = new Root(model, { ...options, lr: 0.1, weightDecay: 0 });
    const copies = deviceMemory(emulated);
    const { grad } = optimizer.deviceMemory(model[1]!);
    copies.write(grad, Float32Array.of(1, NaN, 1, 1, 1));
    const before = snapshot(optimizer, model);
    await expectError(
      () => optimizer.step(),
      'ERR_NON_FINITE',
      'got values not finite or too large for the optimizer\'s state in "w1"; nothing was changed',
    );
    expect(snapshot(optimizer, model)).toEqual(before);
    optimizer.zeroGrad();
    const data = model.map((one) => bits(one.data));
    expect(await optimizer.step()).toMatchObject({ applied: true, step: 1 });
    await optimizer.readParameters();
    expect(model.map((one) => bits(one.data))).toEqual(data);
  });

  test('the CPU has no device memory, and copies nothing', async () => {
    const model = parameters('w', [[6, 4]]);
    using optimizer = new Root(model, { device: 'cpu', hostSync: 'manual' });
    await expectError(
      () => optimizer.deviceMemory(model[0]!),
      'ERR_DEVICE_UNAVAILABLE',
      'Expected an optimizer on a CUDA device, got one on the CPU (asked for)',
    );
    const before = bits(model[0]!.data);
    await optimizer.readParameters();
    await optimizer.writeParameters();
    expect(bits(model[0]!.data)).toBe(before);
  });

  test('strangers, busy and disposed optimizers are refused', async () => {
    const model = parameters('w', [[6, 4]]);
    const optimizer = new Root(model, options);
    await expectError(
      () => optimizer.deviceMemory(parameters('x', [[2, 2]])[0]!),
      'ERR_INVALID_ARGUMENT',
      'one of this optimizer\'s, got "x0"',
    );
    const running = optimizer.step();
    await expectError(() => optimizer.readParameters(), 'ERR_BUSY', 'the step that is running');
    await running;
    const reading = optimizer.readParameters();
    await expectError(() => optimizer.step(), 'ERR_BUSY', 'the transfer that is running');
    await reading;
    optimizer.dispose();
    await expectError(() => optimizer.deviceMemory(model[0]!), 'ERR_DISPOSED', 'disposed');
    await expectError(() => optimizer.readParameters(), 'ERR_DISPOSED', 'disposed');
  });
});
