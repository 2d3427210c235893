import { AdamW, Muon, type OrthogonalState, Parameter, Root } from '../../lib/index.js';
import { bits, devicesUnderTest, expectError, gaussian, isEmulated } from '../support.js';

function parameter(name: string, shape: number[], seed = 1): Parameter {
  const size = shape.reduce((a, b) => a * b, 1);
  return new Parameter({ name, shape, data: gaussian(size, seed), grad: gaussian(size, seed + 100) });
}

/** Detaches an array and returns its memory, which has to be kept as long as a step may use it. */
function detach(array: Float32Array): ArrayBuffer {
  return structuredClone(array.buffer as ArrayBuffer, { transfer: [array.buffer as ArrayBuffer] });
}

describe.each(devicesUnderTest())('on %s', (device) => {
  // A step on this parameter takes long enough for something to happen meanwhile.
  const large = () => parameter('large', isEmulated(device) ? [256, 256] : [1024, 1024]);

  test('step leaves the event loop free', async () => {
    using optimizer = new Root([large()], { device });
    let [turns, stepping] = [0, true];
    const turn = () => {
      turns++;
      if (stepping) setImmediate(turn);
    };
    setImmediate(turn);
    expect(await optimizer.step()).toEqual({ step: 1, applied: true, nonFinite: [] });
    stepping = false;
    // A step on this thread would end before the first turn. How many there are depends on what else the machine does.
    expect(turns).toBeGreaterThan(0);
  });

  test('step and stepSync do the same', async () => {
    const [a, b] = [parameter('w', [30, 70]), parameter('w', [30, 70])];
    using asynchronous = new Root([a], { device });
    using synchronous = new Root([b], { device });
    for (let i = 1; i <= 2; i++) {
      expect(await asynchronous.step()).toEqual(synchronous.stepSync());
      expect(bits(a.data)).toBe(bits(b.data));
    }
  });

  test('while a step runs all but dispose is refused', async () => {
    const w = large();
    using optimizer = new Root([w], { device });
    const pending = optimizer.step();
    const calls = [
      () => optimizer.step(),
      () => optimizer.stepSync(),
      () => {
        optimizer.zeroGrad();
      },
      () => optimizer.stateOf(w),
      () => optimizer.save('/nonexistent/x'),
      () => optimizer.load('/nonexistent/x'),
    ];
    for (const call of calls) {
      await expectError(call, 'ERR_BUSY', 'Expected the step that is running to be awaited first');
    }
    expect(await pending).toMatchObject({ step: 1 });
    expect(optimizer.stepSync()).toMatchObject({ step: 2 });
  });

  test('dispose during a step lets it finish', async () => {
    const [w, twin] = [large(), large()];
    const optimizer = new Root([w], { device });
    const pending = optimizer.step();
    optimizer.dispose();
    expect(await pending).toEqual({ step: 1, applied: true, nonFinite: [] });
    using other = new Root([twin], { device });
    other.stepSync();
    expect(bits(w.data)).toBe(bits(twin.data));
  });

  test('after dispose all but dispose is refused', async () => {
    const w = parameter('w', [3, 4]);
    const optimizer = new Root([w], { device });
    optimizer.dispose();
    optimizer.dispose();
    const calls = [
      () => optimizer.step(),
      () => optimizer.stepSync(),
      () => {
        optimizer.zeroGrad();
      },
      () => optimizer.stateOf(w),
      () => optimizer.save('/nonexistent/x'),
      () => optimizer.load('/nonexistent/x'),
    ];
    for (const call of calls) await expectError(call, 'ERR_DISPOSED', 'got one that was disposed');
  });

  test('using disposes', async () => {
    let optimizer: Root;
    {
      using scoped = new Root([parameter('w', [3, 4])], { device });
      optimizer = scoped;
    }
    await expectError(() => optimizer.stepSync(), 'ERR_DISPOSED', 'disposed');
  });

  test('optimizers step side by side', async () => {
    const make = () => [1, 2, 3, 4].map((seed) => parameter('w', [150, 140], seed));
    const [together, alone] = [make(), make()];
    const optimizers = together.map((w) => new Root([w], { device }));
    await Promise.all(optimizers.map((optimizer) => optimizer.step()));
    alone.forEach((w, i) => {
      using optimizer = new Root([w], { device });
      optimizer.stepSync();
      expect(bits(together[i]!.data)).toBe(bits(w.data));
    });
    optimizers.forEach((optimizer) => {
      optimizer.dispose();
    });
  });

  test('arrays may be replaced between steps, and during one', async () => {
    const [w, twin] = [large(), large()];
    using optimizer = new Root([w], { device });
    using other = new Root([twin], { device });
    const began = w.data;
    const pending = optimizer.step();
    w.data = gaussian(w.size, 7);
    w.grad = gaussian(w.size, 8);
    await pending;
    other.stepSync();
    expect(bits(began)).toBe(bits(twin.data));
    twin.data.set(w.data);
    twin.grad.set(w.grad);
    await optimizer.step();
    other.stepSync();
    expect(bits(w.data)).toBe(bits(twin.data));
  });

  test('shared memory works like any other', () => {
    const shared = new Float32Array(new SharedArrayBuffer(4096), 64, 24);
    shared.set(gaussian(24));
    const w = new Parameter({ name: 'w', shape: [4, 6], data: shared, grad: gaussian(24, 101) });
    const twin = parameter('w', [4, 6]);
    using optimizer = new Root([w], { device });
    using other = new Root([twin], { device });
    optimizer.stepSync();
    other.stepSync();
    expect(bits(shared)).toBe(bits(twin.data));
  });

  describe('gradients that are not finite', () => {
    const huge = 3e38;
    test.each<[string, number, string]>([
      ['NaN', NaN, 'NaN at index 5'],
      ['Infinity', Infinity, 'Infinity at index 5'],
      ['-Infinity', -Infinity, '-Infinity at index 5'],
      ['one that overflows the momentum', huge, "values too large for the optimizer's state"],
    ])('%s', async (_, value, got) => {
      for (const make of [Root, Muon, AdamW]) {
        for (const nonFinite of ['error', 'skip'] as const) {
          const params = [parameter('first', [4, 6]), parameter('bad', [5, 7]), parameter('vector', [8])] as [
            Parameter,
            Parameter,
            Parameter,
          ];
          // A gradient threshold would keep a huge value out of the momentum.
          const gradientThreshold = value === huge ? null : undefined;
          using optimizer = new make(params, { gradientThreshold, device, nonFinite });
          optimizer.stepSync();
          params[1].grad[5] = value;
          const snapshot = () =>
            params.map((one) =>
              Object.values(optimizer.stateOf(one))
                .map((item) =>
                  item instanceof Object && 'buffer' in item ? bits(item as Float32Array) : (item as unknown),
                )
                .concat(bits(one.data)),
            );
          const before = snapshot();
          for (const step of [() => optimizer.step(), () => optimizer.stepSync()]) {
            if (nonFinite === 'skip') expect(await step()).toEqual({ step: 1, applied: false, nonFinite: ['bad'] });
            else {
              await expectError(
                step,
                'ERR_NON_FINITE',
                `Expected finite gradients, got ${got} in "bad"; nothing was changed`,
              );
            }
            expect(snapshot()).toEqual(before);
          }
          params[1].grad[5] = 0;
          expect(await optimizer.step()).toEqual({ step: 2, applied: true, nonFinite: [] });
        }
      }
    });

    test('all of them are named', async () => {
      const params = ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'].map((name) => parameter(name, [2, 3]));
      using optimizer = new Root(params, { device });
      params.slice(1).forEach((one) => (one.grad[0] = NaN));
      await expectError(
        () => optimizer.step(),
        'ERR_NON_FINITE',
        'got NaN at index 0 in "b", "c", "d", "e", "f" and 2 more',
      );
    });

    test('a matrix inside a stack', async () => {
      const w = new Parameter({ name: 'experts', shape: [3, 4, 5], stack: true, grad: gaussian(60) });
      using optimizer = new Root([w], { device });
      w.grad[59] = NaN;
      await expectError(() => optimizer.step(), 'ERR_NON_FINITE', 'got NaN at index 59 in "experts"');
      expect(w.data).toEqual(new Float32Array(60));
    });
  });

  describe('arrays that cannot be used', () => {
    test.each([['data'], ['grad']] as const)('detached %s', async (property) => {
      const [w, other] = [parameter('w', [4, 6]), parameter('other', [4, 6])];
      using optimizer = new Root([other, w], { device });
      const before = bits(other.data);
      detach(w[property]);
      const message = `Expected ${property} of parameter "w" to be a Float32Array of length 24, got one without memory`;
      await expectError(() => optimizer.step(), 'ERR_INVALID_ARGUMENT', message);
      await expectError(() => optimizer.stepSync(), 'ERR_INVALID_ARGUMENT', message);
      await expectError(
        () => {
          optimizer.zeroGrad();
        },
        'ERR_INVALID_ARGUMENT',
        message,
      );
      expect(bits(other.data)).toBe(before);
      w[property] = new Float32Array(24);
      expect(await optimizer.step()).toMatchObject({ applied: true });
    });

    test('detached during a step', async () => {
      const w = large();
      using optimizer = new Root([w], { device });
      const pending = optimizer.step();
      const kept = detach(w.grad);
      await expectError(
        () => pending,
        'ERR_INVALID_ARGUMENT',
        'Expected arrays to stay attached while they are in use',
      );
      await expectError(() => optimizer.stepSync(), 'ERR_INVALID_ARGUMENT', 'without memory');
      w.grad = new Float32Array(kept);
      expect(await optimizer.step()).toMatchObject({ applied: true });
    });

    const memory = new ArrayBuffer(400);
    const at = (offset: number) => new Float32Array(memory, offset, 6);
    test.each<[string, () => Parameter[], string | undefined]>([
      [
        'data twice',
        () => {
          const data = new Float32Array(6);
          return ['a', 'b'].map((name) => new Parameter({ name, shape: [2, 3], data }));
        },
        'got data of parameter "a" and data of parameter "b" that do',
      ],
      [
        'data as gradient',
        () => {
          const data = new Float32Array(6);
          return [new Parameter({ name: 'a', shape: [2, 3], data, grad: data })];
        },
        'parameter "a" that do',
      ],
      [
        "another's data as gradient",
        () => [
          new Parameter({ name: 'a', shape: [2, 3], data: at(0) }),
          new Parameter({ name: 'b', shape: [2, 3], grad: at(20) }),
        ],
        'got data of parameter "a" and grad of parameter "b" that do',
      ],
      [
        'overlapping views',
        () => [
          new Parameter({ name: 'a', shape: [2, 3], data: at(20) }),
          new Parameter({ name: 'b', shape: [2, 3], data: at(0) }),
        ],
        'got data of parameter "b" and data of parameter "a" that do',
      ],
      [
        'a gradient that runs into data',
        () => [
          new Parameter({ name: 'a', shape: [2, 3], grad: at(0) }),
          new Parameter({ name: 'b', shape: [2, 3], data: at(20) }),
        ],
        'got grad of parameter "a" and data of parameter "b" that do',
      ],
      [
        'data inside a gradient, behind another',
        () => [
          new Parameter({ name: 'a', shape: [50], grad: new Float32Array(memory, 0, 50) }),
          new Parameter({ name: 'b', shape: [2, 3], grad: at(0) }),
          new Parameter({ name: 'c', shape: [2, 3], data: at(40) }),
        ],
        'got grad of parameter "a" and data of parameter "c" that do',
      ],
      [
        'neighbouring views',
        () => [
          new Parameter({ name: 'a', shape: [2, 3], data: at(24) }),
          new Parameter({ name: 'b', shape: [2, 3], data: at(0), grad: at(48) }),
        ],
        undefined,
      ],
      [
        'one gradient for two',
        () => {
          const grad = gaussian(6);
          return ['a', 'b'].map((name) => new Parameter({ name, shape: [2, 3], grad }));
        },
        undefined,
      ],
    ])('%s', async (_, make, message) => {
      if (message === undefined) new Root(make(), { device }).dispose();
      else await expectError(() => new Root(make(), { device }), 'ERR_INVALID_ARGUMENT', message);
    });

    test('memory shared only after the start', async () => {
      const [a, b] = [parameter('a', [2, 3]), parameter('b', [2, 3])];
      using optimizer = new Root([a, b], { device });
      optimizer.stepSync();
      b.data = a.data;
      await expectError(() => optimizer.step(), 'ERR_INVALID_ARGUMENT', 'Expected arrays that share no memory');
      b.data = new Float32Array(6);
      optimizer.stepSync();
    });
  });

  test('zeroGrad fills gradients with zeros', () => {
    const params = [parameter('a', [2, 3]), parameter('b', [4])];
    using optimizer = new Root(params, { device });
    optimizer.zeroGrad();
    expect(params.map((one) => one.grad)).toEqual([new Float32Array(6), new Float32Array(4)]);
  });

  test.each([
    [3, 2],
    [4, 3],
    [8, 2],
    [8, 5],
  ])('%i threads on %i matrices do what one does', (threads, count) => {
    const make = () => Array.from({ length: count }, (_, i) => parameter(`w${i}`, [40 + i, 64], i));
    const [many, one] = [make(), make()];
    using together = new Root(many, { device, threads });
    using alone = new Root(one, { device, threads: 1 });
    for (let i = 0; i < 20; i++) for (const optimizer of [together, alone]) optimizer.stepSync();
    expect(many.map(({ data }) => bits(data))).toEqual(one.map(({ data }) => bits(data)));
  });

  test('a parameter that another optimizer is stepping is refused', async () => {
    const shared = large();
    using first = new Root([shared], { device });
    using second = new AdamW([shared, parameter('b', [3])], { device });
    const running = first.step();
    await expectError(() => second.step(), 'ERR_BUSY', /another optimizer.*"large"/);
    await expectError(() => second.stepSync(), 'ERR_BUSY', /another optimizer.*"large"/);
    await running;
    expect(second.stepSync().applied).toBe(true);
  });

  test('settings whose product leaves float32 change nothing', async () => {
    const [w, b] = [parameter('w', [5, 6]), parameter('b', [7])];
    using optimizer = new Root([w, b], { device, lr: 1e30, weightDecay: 1e30 });
    const before = [w, b].map(({ data }) => bits(data));
    await expectError(() => optimizer.step(), 'ERR_INVALID_ARGUMENT', /1 - lr \* weightDecay.*float32/);
    expect([w, b].map(({ data }) => bits(data))).toEqual(before);
    expect((optimizer.stateOf(w) as OrthogonalState).momentumBuffer.every((value) => value === 0)).toBe(true);
  });

  test('a learning rate of zero without weight decay keeps even the sign of zero', () => {
    const [w, b] = [parameter('w', [9, 4]), parameter('b', [5])];
    for (const { data } of [w, b]) data.fill(-0);
    using optimizer = new Root([w, b], { device, lr: 0, weightDecay: 0, adamw: { lr: 0 } });
    optimizer.stepSync();
    for (const { data } of [w, b]) expect(data.every((value) => Object.is(value, -0))).toBe(true);
  });

  test('memoryBytes counts the state, and scratch once a step has needed some', () => {
    const options = { device, threads: 1, precision: device === 'cpu' ? 'float32' : 'float16' } as const;
    using optimizer = new Root([parameter('w', [96, 400]), parameter('b', [50])], options);
    // A CUDA device keeps data and gradients too. Those of each parameter begin at a multiple of 64 elements.
    const state = 4 * (96 * 400 + 96 + 2 * 50) + (device === 'cpu' ? 0 : 2 * 4 * (96 * 400 + 64));
    expect(optimizer.memoryBytes).toBe(state);
    optimizer.stepSync();
    const scratch = optimizer.memoryBytes - state;
    expect(scratch).toBeGreaterThan(2 * (device === 'cpu' ? 4 : 2) * 96 * 400);
    expect(scratch).toBeLessThan(4 * 4 * 96 * 400);
    optimizer.stepSync();
    expect(optimizer.memoryBytes - state).toBe(scratch);
  });

  test('stateOf returns copies', async () => {
    const [w, b, stranger] = [parameter('w', [2, 3]), parameter('b', [4]), parameter('w', [2, 3])];
    using optimizer = new Root([w, b], { gradientThreshold: null, device });
    expect(optimizer.stateOf(w)).toEqual({
      step: 0,
      momentumBuffer: new Float32Array(6),
      threshold: null,
      thresholds: [null],
      gradientThreshold: null,
      gradientThresholds: [null],
      gradientScale: null,
      gradientScales: [null],
      rowSecondMoment: null,
    });
    expect(optimizer.stateOf(b)).toEqual({
      step: 0,
      expAvg: new Float32Array(4),
      expAvgSq: new Float32Array(4),
      gradientThreshold: null,
      gradientScale: null,
    });
    optimizer.stepSync();
    const state = optimizer.stateOf(w) as OrthogonalState;
    expect([...state.momentumBuffer]).toEqual([...w.grad]);
    expect(state.threshold).toBeGreaterThan(0);
    state.momentumBuffer.fill(7);
    expect([...(optimizer.stateOf(w) as OrthogonalState).momentumBuffer]).toEqual([...w.grad]);
    await expectError(
      () => optimizer.stateOf(stranger),
      'ERR_INVALID_ARGUMENT',
      'Expected the parameter to be one of this optimizer\'s, got "w"',
    );
    await expectError(
      () => optimizer.stateOf(undefined as unknown as Parameter),
      'ERR_INVALID_ARGUMENT',
      'got undefined',
    );
  });
});
