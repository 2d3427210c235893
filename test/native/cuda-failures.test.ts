import { devicesUnderTest, isEmulated, runScript } from '../support.js';

const emulated = devicesUnderTest().some(isEmulated);
const onEmulator = emulated ? describe : describe.skip;

onEmulator('what there is instead of a device', () => {
  const look = `
    const message = (device) => {
      try {
        const one = new AdamW([new Parameter({ name: 'w', shape: [2] })], { device });
        one.dispose();
        return one.device.name + ': ' + one.device.reason;
      } catch (error) {
        return error.code + ': ' + error.message;
      }
    };
    const { devices: found, reason } = devices().cuda;
    console.log(JSON.stringify({ found: found.length, reason, auto: message('auto'), cuda: message('cuda') }));`;
  test.each<[Record<string, string>, number, string]>([
    [{ EMULATOR_DRIVER: '0' }, 0, 'no NVIDIA driver is installed'],
    [{ EMULATOR_DRIVER: '12080' }, 0, 'the NVIDIA driver is too old: it supports CUDA 12.8, this build needs 13.0'],
    [{ EMULATOR_DEVICES: '0' }, 0, 'there is no NVIDIA GPU'],
    [
      { EMULATOR_CAPABILITY: '7.5', EMULATOR_DEVICES: '1' },
      0,
      'cuda:0: Emulated GPU is too old: it has compute capability 7.5, this build needs 8.0',
    ],
    [{ EMULATOR_MEMORY: '30000000', EMULATOR_DEVICES: '1' }, 1, 'cuda:0: its memory is taken: 28 MiB are free of 28'],
    [{ EMULATOR_FAIL: 'cudaGetDeviceCount:1=cudaErrorUnknown' }, 0, 'cudaGetDeviceCount failed: cudaErrorUnknown'],
    [
      {
        EMULATOR_FAIL: 'cudaMemGetInfo:1=cudaErrorMemoryAllocation,cudaMemGetInfo:2=cudaErrorMemoryAllocation',
        EMULATOR_DEVICES: '1',
      },
      1,
      'cuda:0: its memory is taken: cudaMemGetInfo failed: cudaErrorMemoryAllocation',
    ],
  ])('%j', (env, found, reason) => {
    const result = runScript<{ found: number; reason: string | null; auto: string; cuda: string }>(look, env);
    expect(result).toMatchObject({ found, reason: found === 0 ? reason : null });
    expect(result.auto).toContain(`cpu: ${reason}`);
    expect(result.cuda).toContain(`ERR_DEVICE_UNAVAILABLE: Expected device "cuda" to be available: ${reason}`);
  });
});

/**
 * Every optimizer takes three steps or fails. What is left then is compared with the result of steps that did not fail.
 */
const trial = `
  // Every trial takes the same values. To make them anew takes longer than a step.
  const known = new Map();
  const values = (size, seed) => {
    const key = size + ' ' + seed;
    if (!known.has(key)) {
      const made = new Float32Array(size);
      for (let i = 0; i < size; i++) made[i] = Math.sin(i * 12.9898 + seed);
      known.set(key, made);
    }
    return known.get(key).slice();
  };
  const make = () => [[6, 10], [6, 10], [12, 4], [60000]].map((shape, i) => {
    return new Parameter({ name: 'w' + i, shape, data: values(shape.reduce((a, b) => a * b), i) });
  });
  const fill = (model, step) => model.forEach((one, i) => one.grad.set(values(one.size, 10 * step + i)));
  const bytes = (arrays) => Buffer.concat(arrays.map((one) => Buffer.from(one.buffer)));
  const digest = (arrays) => require('node:crypto').createHash('sha1').update(bytes(arrays)).digest('hex');
  const dataOf = (model) => digest(model.map((one) => one.data));
  const arraysOf = (state) => Object.values(state).filter((item) => ArrayBuffer.isView(item));
  const stateOf = (optimizer, model) => digest(model.flatMap((one) => arraysOf(optimizer.stateOf(one))));
  // Coefficients that every process would have to fit tell nothing about failures.
  const options = { device: 'cuda:0', coefficients: 'muon' };
  const steps = 3;`;

interface Outcome {
  /** Calls that threw: the code, whether the call was a step, and the message. */
  errors: [code: string, when: string, message: string][];
  wrong: string[];
  /** Optimizers that had to be given up. */
  lost: number;
  finished: number;
}

onEmulator('a call that fails', () => {
  let expected: string;
  beforeAll(() => {
    expected = JSON.stringify(
      runScript(
        `${trial}
      const model = make();
      const optimizer = new Root(model, options);
      const expected = [[dataOf(model), stateOf(optimizer, model)]];
      for (let step = 1; step <= steps; step++) {
        fill(model, step);
        optimizer.stepSync();
        expected.push([dataOf(model), stateOf(optimizer, model)]);
      }
      console.log(JSON.stringify(expected));`,
        {},
      ),
    );
  });

  const calls = [
    'cudaMallocFromPoolAsync',
    'cudaMallocHost',
    'cudaMemPoolCreate',
    'cudaStreamCreateWithFlags',
    'cudaEventCreateWithFlags',
    'cudaSetDevice',
    'cudaGetDevice',
    'cudaMemsetAsync',
    'cudaMemcpyAsync',
    'cudaLaunchKernel',
    'cudaFuncSetAttribute',
    'cudaDeviceGetAttribute',
    'cudaFuncGetAttributes',
    'cudaStreamBeginCapture',
    'cudaStreamEndCapture',
    'cudaGraphInstantiate',
    'cudaGraphUpload',
    'cudaGraphLaunch',
    'cudaEventRecord',
    'cudaEventSynchronize',
    'cudaStreamWaitEvent',
  ];
  test.each(calls)('%s', (call) => {
    const error = /Malloc|Pool/.test(call) ? 'cudaErrorMemoryAllocation' : 'cudaErrorUnknown';
    // The failures are further and further apart, and so each hits another place of a trial.
    const failures = Array.from({ length: 120 }, (_, i) => `${call}:${(i * (i + 3)) / 2 + 1}=${error}`).join();
    const outcome = runScript<Outcome>(
      `${trial}
      const expected = ${expected};
      const outcome = { errors: [], wrong: [], lost: 0, finished: 0 };
      for (let trial = 0; trial < 300 && outcome.finished + outcome.lost < 16; trial++) {
        const model = make();
        let optimizer;
        try {
          optimizer = new Root(model, options);
        } catch (error) {
          outcome.errors.push([error.code, 'constructor', error.message]);
          if (dataOf(model) !== expected[0][0]) outcome.wrong.push('data after a failed constructor');
          continue;
        }
        let done = 0;
        for (let attempt = 0; attempt < 20 && done < steps; attempt++) {
          fill(model, done + 1);
          try {
            if (attempt % 2 === 0) optimizer.stepSync(); else await optimizer.step();
            done++;
            if (dataOf(model) !== expected[done][0]) {
              outcome.wrong.push('data after step ' + done + ' of trial ' + trial);
            }
          } catch (error) {
            outcome.errors.push([error.code, 'step', error.message]);
            let state;
            try { state = stateOf(optimizer, model); } catch (again) {
              outcome.errors.push([again.code, 'stateOf', again.message]);
              try { state = stateOf(optimizer, model); } catch { outcome.lost++; break; }
            }
            if (dataOf(model) !== expected[done][0]) outcome.wrong.push('data after a failed step: ' + error.message);
            if (state !== expected[done][1]) outcome.wrong.push('state after a failed step: ' + error.message);
          }
        }
        if (done === steps) outcome.finished++;
        try { optimizer.dispose(); } catch (error) { outcome.wrong.push('dispose: ' + error.message); }
      }
      console.log(JSON.stringify(outcome));`,
      // This memory is little more than one optimizer needs, so that a leak after a failure soon shows.
      { EMULATOR_FAIL: failures, EMULATOR_MEMORY: String(72 << 20) },
    );
    expect(outcome.wrong).toEqual([]);
    expect(outcome.errors.length).toBeGreaterThan(0);
    for (const [code] of outcome.errors) expect(code).toMatch(/^ERR_(CUDA|OUT_OF_MEMORY|DEVICE_UNAVAILABLE)$/);
    // A message names a launch by its kernel.
    expect(
      outcome.errors.filter(
        ([, , message]) => !message.includes(call === 'cudaLaunchKernel' ? ' failed: cudaErrorUnknown' : call),
      ),
    ).toEqual([]);
    expect(outcome.finished + outcome.lost).toBe(16);
    expect(outcome.finished).toBeGreaterThan(0);
    // Only these calls are made after the first update has been launched, when it can no longer be told what has been
    // done.
    if (!/^cuda(MemcpyAsync|EventRecord|EventSynchronize|StreamWaitEvent)$/.test(call)) expect(outcome.lost).toBe(0);
  });

  test('between two parts of the updates loses the optimizer, and every call says so', () => {
    // The data are more than 32 MB, so there are two jobs. The graphs of their updates follow those of their checks.
    const outcome = runScript<{ errors: [string, string][]; disposed: string }>(
      `
      const ones = () => new Float32Array(176000).fill(1);
      const parameter = (i) => new Parameter({ name: 'w' + i, shape: [176000], data: ones(), grad: ones() });
      const model = Array.from({ length: 49 }, (_, i) => parameter(i));
      const optimizer = new AdamW(model, { device: 'cuda:0' });
      const errors = [];
      const calls = [
        () => optimizer.stepSync(),
        () => optimizer.step(),
        () => optimizer.stateOf(model[0]),
        () => optimizer.save('/nonexistent/x'),
      ];
      for (const call of calls) {
        try {
          await call();
          errors.push(['none', '']);
        } catch (error) {
          errors.push([error.code, error.message]);
        }
      }
      optimizer.dispose();
      const again = new AdamW(model, { device: 'cuda:0' });
      console.log(JSON.stringify({ errors, disposed: String(again.stepSync().applied) }));`,
      { EMULATOR_FAIL: 'cudaGraphLaunch:4=cudaErrorMemoryAllocation' },
    );
    expect(outcome.errors.map(([code]) => code)).toEqual(['ERR_OUT_OF_MEMORY', 'ERR_CUDA', 'ERR_CUDA', 'ERR_CUDA']);
    for (const [, message] of outcome.errors) {
      expect(message).toMatch(
        /cudaGraphLaunch of the updates failed: .* while a step was being applied: what the optimizer held is lost/,
      );
    }
    expect(outcome.disposed).toBe('true');
  });
});
