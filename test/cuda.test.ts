import koffi from 'koffi';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir, totalmem } from 'node:os';
import path from 'node:path';
import { AdamW, type Device, devices, Muon, type OrthogonalState, orthogonalizeSync, Parameter, type Precision, Root, type RootGroup, type RootOptions, softThresholdSync } from '../lib/index.js';
import { deviceMemory } from '../scripts/device-memory.js';
import { bits, devicesUnderTest, expectError, gaussian, isEmulated, relativeError } from './support.js';

const device = devicesUnderTest().find((one) => one !== 'cpu') ?? 'cuda';
const emulated = isEmulated(device);
const onCuda = devicesUnderTest().includes(device) ? describe : describe.skip;
const onGpu = emulated ? describe.skip : onCuda;

type Fill = (rows: number, columns: number) => Float32Array;

const spectra: Record<string, Fill> = {
  Gaussian: (rows, columns) => gaussian(rows * columns, rows + columns),
  'heavy-tailed': (rows, columns) => gaussian(rows * columns, 3).map((value) => value ** 3),
  'low rank and noise': (rows, columns) => {
    const [left, right, noise] = [gaussian(rows * 4, 5), gaussian(4 * columns, 6), gaussian(rows * columns, 7)];
    return noise.map((value, i) => {
      const [row, column] = [Math.floor(i / columns), i % columns];
      let sum = 0.2 * value;
      for (let k = 0; k < 4; k++) sum += left[row * 4 + k]! * right[k * columns + column]!;
      return sum;
    });
  },
  decaying: (rows, columns) => reflected(gaussian(rows * columns, 8).map((value, i) => value * (Math.floor(i / columns) + 1) ** -0.8), rows, columns),
};

/** (I − 2vvᵀ)·X, which mixes the rows and keeps the singular values. */
function reflected(x: Float32Array, rows: number, columns: number): Float32Array {
  const v = gaussian(rows, 9);
  const norm = Math.hypot(...v);
  const sums = new Float64Array(columns);
  x.forEach((value, i) => (sums[i % columns]! += (v[Math.floor(i / columns)]! / norm) * value));
  return x.map((value, i) => value - (2 * v[Math.floor(i / columns)]! * sums[i % columns]!) / norm);
}

/** Relative to the CPU's result, in the Frobenius norm. */
const limits: [Precision, number][] = [['float32', 1e-5], ['float16', 5e-3], ['bfloat16', 3e-2]];

function parameters(prefix: string, shapes: readonly number[][]): Parameter[] {
  return shapes.map((shape, i) => {
    const one = new Parameter({ name: `${prefix}${i}`, shape });
    one.data.set(gaussian(one.size, i + 1));
    return one;
  });
}

function fillGradients(step: number, ...models: Parameter[][]): void {
  for (const model of models) model.forEach((one, i) => { one.grad.set(gaussian(one.size, 100 * step + i)); });
}

/** What bits a model and its state consist of. */
function snapshot(optimizer: Root | Muon | AdamW, model: readonly Parameter[]): string[] {
  return model.flatMap((one) => {
    const state = optimizer.stateOf(one);
    return 'momentumBuffer' in state ? [bits(one.data), bits(state.momentumBuffer), state.thresholds.join()] : [bits(one.data), bits(state.expAvg), bits(state.expAvgSq)];
  });
}

const small: [number, number][] = [[1, 1], [1, 33], [72, 72], [65, 200], [200, 65], [129, 257]];
const large: [number, number][] = [...small, [1000, 1000], [768, 3072], [3072, 768], [2048, 2048], [2049, 8191]];

onCuda('the CUDA backend and the CPU', () => {
  test.each((emulated ? small : large).flatMap(([rows, columns]) => Object.keys(spectra).map((name) => [name, rows, columns] as const)))('orthogonalise alike: %s, %i × %i', (name, rows, columns) => {
    const x = spectra[name]!(rows, columns);
    const expected = orthogonalizeSync(x, [rows, columns], { device: 'cpu' });
    for (const [precision, limit] of limits) {
      const error = relativeError(orthogonalizeSync(x, [rows, columns], { device, precision }), expected);
      expect({ precision, error: error < limit ? 'small' : error }).toEqual({ precision, error: 'small' });
    }
  });

  test.each([0, 0.3, 0.5, 0.9, 0.99, 1])('find the same thresholds to the bit at quantile %f', (quantile) => {
    const shapes = emulated ? [[1, 1], [3, 5], [64, 65], [130, 31]] : [[1, 1], [3, 5], [64, 65], [130, 31], [1023, 1025], [5000, 5000]];
    for (const nesterov of [true, false]) {
      const [there, here] = [parameters('w', shapes), parameters('w', shapes)];
      using onDevice = new Root(there, { device, nesterov, threshold: { quantile, scale: 1.5 } });
      using onHost = new Root(here, { device: 'cpu', nesterov, threshold: { quantile, scale: 1.5 } });
      for (let step = 1; step <= 3; step++) {
        fillGradients(step, there, here);
        onDevice.stepSync();
        onHost.stepSync();
        for (const [i, one] of there.entries()) {
          const [a, b] = [onDevice.stateOf(one), onHost.stateOf(here[i]!)] as [OrthogonalState, OrthogonalState];
          expect(a.thresholds).toEqual(b.thresholds);
          expect(bits(a.momentumBuffer)).toBe(bits(b.momentumBuffer));
        }
      }
    }
  });

  const awkward: Record<string, Float32Array> = {
    'all equal': new Float32Array(4097).fill(-2.5),
    'all zero': new Float32Array(1000),
    ties: Float32Array.from({ length: 5000 }, (_, i) => ((i * 7) % 11) - 5),
    denormals: Float32Array.from({ length: 3000 }, (_, i) => (i - 1500) * 1e-43),
    'denormals among others': gaussian(3000).map((value, i) => (i % 2 === 0 ? value : value * 1e-40)),
    'neighbouring floats': Float32Array.from(new Uint32Array(3000).map((_, i) => 0x3f7ff000 + 3 * i).reduce<number[]>((list, word) => list.concat(new Float32Array(Uint32Array.of(word).buffer)[0]!), [])),
    'the whole range': Float32Array.from({ length: 4001 }, (_, i) => (i % 2 === 0 ? 1 : -1) * 2 ** ((i - 2200) / 18)),
  };
  test.each(Object.entries(awkward))('split alike to the bit: %s', (_, x) => {
    for (const quantile of [0, 0.1, 0.5, 0.77, 0.999, 1]) {
      const [there, here] = [device, 'cpu' as const].map((where) => softThresholdSync(x, { quantile, scale: 0.75, device: where }));
      expect([there!.threshold, bits(there!.base), bits(there!.outliers)]).toEqual([here!.threshold, bits(here!.base), bits(here!.outliers)]);
    }
  });

  test.each(limits)('train alike in %s', (precision, limit) => {
    const shapes = [[40, 96], [40, 96], [96, 40], [33, 17], [6, 3, 2, 2], [5], []];
    const [there, here] = [parameters('w', shapes), parameters('w', shapes)];
    using onDevice = new Root(there, { device, precision, lr: 0.05 });
    using onHost = new Root(here, { device: 'cpu', lr: 0.05 });
    for (let step = 1; step <= 5; step++) {
      fillGradients(step, there, here);
      onDevice.stepSync();
      onHost.stepSync();
    }
    there.forEach((one, i) => { expect(relativeError(one.data, here[i]!.data)).toBeLessThan(limit); });
  });
});

onCuda('a step that is replayed', () => {
  test('follows every setting as it is written, and no other', () => {
    const shapes = [[24, 48], [24, 48], [30, 12], [7]];
    const changes: (() => Partial<Omit<RootGroup, 'params' | 'algorithm'>>)[] = [
      () => ({}),
      () => ({ lr: 0.003 }),
      () => ({ momentum: 0.5, weightDecay: 0.3 }),
      () => ({ threshold: { quantile: 0.5, scale: 2 } }),
      () => ({ threshold: null }),
      () => ({ nesterov: false }),
      () => ({ coefficients: 'quintic' }),
      () => ({ steps: 3 }),
      () => ({ threshold: { quantile: 0.9, scale: 1 }, lrScale: 'none' }),
      () => ({ lr: 0, weightDecay: 0 }),
    ];
    const [there, here] = [parameters('w', shapes), parameters('w', shapes)];
    using onDevice = new Root(there, { device, precision: 'float32' });
    using onHost = new Root(here, { device: 'cpu' });
    changes.forEach((change, step) => {
      for (const { paramGroups } of [onDevice, onHost]) Object.assign(paramGroups[0]!, change());
      for (const { paramGroups } of [onDevice, onHost]) paramGroups[1]!.lr = 1e-3 * (step + 1);
      for (let again = 0; again < 2; again++) {
        fillGradients(10 * step + again, there, here);
        onDevice.stepSync();
        onHost.stepSync();
        there.forEach((one, i) => {
          expect(relativeError(one.data, here[i]!.data)).toBeLessThan(1e-5);
          const [a, b] = [onDevice.stateOf(one), onHost.stateOf(here[i]!)];
          if ('thresholds' in a) expect(a).toMatchObject({ thresholds: (b as OrthogonalState).thresholds });
        });
      }
    });
  });

  test('is the step that an optimizer of its own would take', () => {
    const shapes = [[24, 48], [20, 20], [9]];
    const [kept, renewed] = [parameters('w', shapes), parameters('w', shapes)];
    using whole = new Muon(kept, { device, momentum: 0 });
    for (let step = 1; step <= 3; step++) {
      fillGradients(step, kept, renewed);
      whole.stepSync();
      using once = new Muon(renewed.slice(0, 2), { device, momentum: 0 });
      once.stepSync();
      for (const i of [0, 1]) expect(bits(kept[i]!.data)).toBe(bits(renewed[i]!.data));
    }
  });

  test('goes on after one that was left out', () => {
    const [bad, good] = [parameters('w', [[12, 20], [5]]), parameters('w', [[12, 20], [5]])];
    using withGap = new Root(bad, { device, nonFinite: 'skip' });
    using without = new Root(good, { device });
    for (let step = 1; step <= 3; step++) {
      fillGradients(step, bad, good);
      bad[step % 2]!.grad[3] = NaN;
      const before = snapshot(withGap, bad);
      expect(withGap.stepSync()).toMatchObject({ applied: false, step: step - 1 });
      expect(snapshot(withGap, bad)).toEqual(before);
      fillGradients(step, bad);
      withGap.stepSync();
      without.stepSync();
      expect(snapshot(withGap, bad)).toEqual(snapshot(without, good));
    }
  });
});

onCuda('a thread\'s CUDA context', () => {
  test('is after every call what it was before, none to begin with', async () => {
    const driver = koffi.load(emulated ? process.env['ROOT_OPTIMIZER_ADDON']! : 'libcuda.so.1');
    const get = driver.func('int cuCtxGetCurrent(_Out_ void** context)') as (out: unknown[]) => number;
    const current = () => {
      const context: unknown[] = [undefined];
      return get(context) === 0 ? context[0] : 'no driver';
    };
    const before = null; // so it stays after all the tests above
    expect(current()).toEqual(before);
    const model = parameters('w', [[6, 4], [5]]);
    const optimizer = new Root(model, { device });
    expect(current()).toEqual(before);
    await optimizer.step();
    const calls: (() => unknown)[] = [() => optimizer.stepSync(), () => optimizer.stateOf(model[0]!), () => orthogonalizeSync(gaussian(6), [2, 3], { device })];
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
    // A transfer buffer holds 4 Mi floats: pieces of the third one share none, the small ones share one.
    const shapes = [[3], [1], [9_000_001], [64], [65, 3], [2]];
    const model = parameters('w', shapes);
    const before = model.map((one) => one.data.slice());
    using optimizer = new AdamW(model, { device, lr: 0, weightDecay: 0 });
    fillGradients(1, model);
    optimizer.stepSync();
    model.forEach((one, i) => {
      expect(bits(one.data)).toBe(bits(before[i]!));
      const { expAvg } = optimizer.stateOf(one) as { expAvg: Float32Array };
      expect(relativeError(expAvg, one.grad.map((value) => value * 0.1))).toBeLessThan(1e-6);
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
      there.forEach((one, i) => { expect(relativeError(one.data, here[i]!.data)).toBeLessThan(1e-5); });
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
      for (const [optimizer, model] of [[onHost, second], [manual, third]] as const) {
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

  test('gradients may be computed on the device', async () => {
    const [there, twin] = [parameters('w', [[24, 40], [33]]), parameters('w', [[24, 40], [33]])];
    const before = there.map((one) => bits(one.data));
    using manual = new Root(there, options);
    using usual = new Root(twin, { device });
    const copies = deviceMemory(emulated);
    const memory = there.map((one) => manual.deviceMemory(one));
    expect(memory.every(({ data, grad }) => data > 0n && grad > 0n && data % 256n === 0n && grad % 256n === 0n)).toBe(true);
    expect(new Set(memory.map(({ stream }) => stream)).size).toBe(1);
    for (let step = 1; step <= 3; step++) {
      fillGradients(step, twin);
      twin.forEach((one, i) => { copies.write(memory[i]!.grad, one.grad); });
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
    model.forEach((one) => { expect(one.data.every((value) => value === 4)).toBe(true); });
  });

  test('zeroGrad reaches the device, and NaN there is found', async () => {
    const model = parameters('w', [[6, 4], [5]]);
    using optimizer = new Root(model, { ...options, lr: 0.1, weightDecay: 0 });
    const copies = deviceMemory(emulated);
    const { grad } = optimizer.deviceMemory(model[1]!);
    copies.write(grad, Float32Array.of(1, NaN, 1, 1, 1));
    const before = snapshot(optimizer, model);
    await expectError(() => optimizer.step(), 'ERR_NON_FINITE', 'got values not finite or too large for the optimizer\'s state in "w1"; nothing was changed');
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
    await expectError(() => optimizer.deviceMemory(model[0]!), 'ERR_DEVICE_UNAVAILABLE', 'Expected an optimizer on a CUDA device, got one on the CPU (asked for)');
    const before = bits(model[0]!.data);
    await optimizer.readParameters();
    await optimizer.writeParameters();
    expect(bits(model[0]!.data)).toBe(before);
  });

  test('strangers, busy and disposed optimizers are refused', async () => {
    const model = parameters('w', [[6, 4]]);
    const optimizer = new Root(model, options);
    await expectError(() => optimizer.deviceMemory(parameters('x', [[2, 2]])[0]!), 'ERR_INVALID_ARGUMENT', 'one of this optimizer\'s, got "x0"');
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

const two = devices().cuda.devices.length > 1 ? onCuda : describe.skip;
two('two devices', () => {
  test('step side by side and alike', async () => {
    const shapes = [[40, 64], [64, 40], [11]];
    const models = [0, 1, 0, 1].map(() => parameters('w', shapes));
    const optimizers = models.map((model, i) => new Root(model, { device: `cuda:${i % 2}` as Device }));
    for (let step = 1; step <= 3; step++) {
      fillGradients(step, ...models);
      await Promise.all(optimizers.map((optimizer) => optimizer.step()));
    }
    expect(new Set(models.map((model, i) => snapshot(optimizers[i]!, model).join())).size).toBe(1);
    optimizers.forEach((optimizer) => { optimizer.dispose(); });
  });
});

onGpu('on a GPU, at sizes out of the emulator\'s reach', () => {
  const minutes = 60_000;

  test('4096 × 14336', () => {
    for (const fill of Object.values(spectra)) {
      const x = fill(4096, 14336);
      const expected = orthogonalizeSync(x, [4096, 14336], { device: 'cpu' });
      for (const [precision, limit] of limits) expect(relativeError(orthogonalizeSync(x, [4096, 14336], { device, precision }), expected)).toBeLessThan(limit);
    }
  }, 30 * minutes);

  test('a batch of 2048 × 8192', () => {
    const shapes = Array.from({ length: 12 }, () => [2048, 8192]);
    const model = parameters('w', shapes);
    const twin = new Parameter({ name: 'twin', shape: [2048, 8192], data: model[7]!.data.slice() });
    using together = new Root(model, { device });
    using alone = new Root([twin], { device });
    using onHost = new Root([new Parameter({ name: 'host', shape: [2048, 8192], data: model[7]!.data.slice() })], { device: 'cpu' });
    fillGradients(1, model);
    twin.grad.set(model[7]!.grad);
    onHost.paramGroups[0]!.params[0]!.grad.set(twin.grad);
    together.stepSync();
    alone.stepSync();
    onHost.stepSync();
    expect(bits(model[7]!.data)).toBe(bits(twin.data));
    const { data } = onHost.paramGroups[0]!.params[0]!;
    expect(relativeError(twin.data, data)).toBeLessThan(5e-3);
    expect(together.stateOf(model[7]!)).toMatchObject({ thresholds: (onHost.stateOf(onHost.paramGroups[0]!.params[0]!) as OrthogonalState).thresholds });
  }, 10 * minutes);

  // Data, gradients and momentum of 2.2e9 elements, here and there.
  const roomy = (devices().cuda.devices[0]?.memoryBytes ?? 0) > 36e9 && totalmem() > 36e9;
  (roomy ? test : test.skip)('more than 2^31 elements in all', () => {
    const shape = [4096, 14336];
    const grad = gaussian(4096 * 14336);
    // Gradients may share memory, data may not.
    const model = Array.from({ length: 37 }, (_, i) => new Parameter({ name: `w${i}`, shape, grad }));
    using optimizer = new Root(model, { device, weightDecay: 0 });
    optimizer.stepSync();
    const [first] = model.map((one) => bits(one.data));
    for (const one of model) expect(bits(one.data)).toBe(first);
    const expected = orthogonalizeSync(softThresholdSync(grad, { device: 'cpu' }).base, shape, { device: 'cpu' });
    const rate = -0.02 * 0.2 * Math.sqrt(14336);
    expect(relativeError(model[36]!.data, expected.map((value) => rate * value))).toBeLessThan(5e-3);
  }, 30 * minutes);

  test('more than 2^24 elements in a matrix of few rows, and in one of few columns', () => {
    for (const [rows, columns] of [[3, 7_000_001], [7_000_001, 3]] as const) {
      const x = gaussian(rows * columns);
      const expected = orthogonalizeSync(x, [rows, columns], { device: 'cpu' });
      for (const [precision, limit] of limits) expect(relativeError(orthogonalizeSync(x, [rows, columns], { device, precision }), expected)).toBeLessThan(limit);
      expect(softThresholdSync(x, { device }).threshold).toBe(softThresholdSync(x, { device: 'cpu' }).threshold);
    }
  }, 10 * minutes);
});
