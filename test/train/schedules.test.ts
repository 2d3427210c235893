import { makeSchedule, RootError, type ScheduleOptions } from '../../lib/index.js';

test('the warm-up rises in equal parts to 1', () => {
  const schedule = makeSchedule('cosine', 100, { warmup: 4 });
  expect([1, 2, 3, 4].map(schedule)).toEqual([0.25, 0.5, 0.75, 1]);
});

test.each(['cosine', 'linear', 'constant'] as const)('%s without a warm-up starts at 1', (kind) => {
  expect(makeSchedule(kind, 10)(1)).toBe(1);
  expect(makeSchedule(kind, 1)(1)).toBe(1);
});

test('a constant schedule stays at 1', () => {
  const schedule = makeSchedule('constant', 10, { warmup: 2 });
  expect([2, 3, 10, 11, 1000].map(schedule)).toEqual([1, 1, 1, 1, 1]);
});

test.each(['cosine', 'linear'] as const)(
  '%s is half way down in the middle and at the floor just after the last step',
  (kind) => {
    const schedule = makeSchedule(kind, 109, { warmup: 10, floor: 0.2 });
    expect(schedule(10)).toBe(1);
    expect(schedule(60)).toBeCloseTo(0.6, 12);
    expect(schedule(109)).toBeGreaterThan(0.2);
    expect([110, 111, 1e6].map(schedule)).toEqual([0.2, 0.2, 0.2]);
  },
);

test('a linear schedule falls in equal parts', () => {
  const schedule = makeSchedule('linear', 4);
  expect([1, 2, 3, 4, 5].map(schedule)).toEqual([1, 0.75, 0.5, 0.25, 0]);
});

test('a cosine is flat at both ends', () => {
  const schedule = makeSchedule('cosine', 1000);
  expect(schedule(1) - schedule(2)).toBeLessThan(1e-5);
  expect(schedule(999) - schedule(1000)).toBeLessThan(1e-5);
  expect(schedule(251)).toBeCloseTo((1 + Math.SQRT1_2) / 2, 3);
});

test.each(['cosine', 'linear', 'constant'] as const)(
  '%s stays in [0, 1], never rises after the warm-up and never jumps',
  (kind) => {
    const schedule = makeSchedule(kind, 500, { warmup: 50, floor: 0.1 });
    for (let step = 1; step <= 510; step++) {
      const [here, next] = [schedule(step), schedule(step + 1)];
      expect(here).toBeGreaterThan(0);
      expect(here).toBeLessThanOrEqual(1);
      expect(Math.abs(next - here)).toBeLessThanOrEqual(0.02 + 1e-12);
      if (step >= 50) expect(next).toBeLessThanOrEqual(here);
    }
  },
);

test.each<[string, unknown[], string]>([
  [
    'an unknown kind',
    ['exponential', 10],
    'Expected the kind of schedule to be one of "cosine", "linear", "constant", got "exponential"',
  ],
  ['no steps', ['cosine', 0], 'Expected steps to be an integer in [1, 9007199254740991], got 0'],
  ['steps that are not whole', ['cosine', 1.5], 'got 1.5'],
  [
    'a warm-up longer than all steps',
    ['cosine', 10, { warmup: 11 }],
    'Expected warmup to be an integer in [0, 10], got 11',
  ],
  ['a floor above 1', ['cosine', 10, { floor: 1.1 }], 'Expected floor to be in [0, 1], got 1.1'],
  ['a floor that is not a number', ['cosine', 10, { floor: NaN }], 'Expected floor to be in [0, 1], got NaN'],
  ['a misspelt option', ['cosine', 10, { warmUp: 2 }], 'Unknown option "warmUp" of a schedule; did you mean "warmup"?'],
])('%s is refused', (_, args, message) => {
  const [kind, steps, options] = args as ['cosine', number, ScheduleOptions | undefined];
  const call = () => makeSchedule(kind, steps, options);
  expect(call).toThrow(RootError);
  expect(call).toThrow(message);
});

test.each([0, -1, 1.5, NaN])('a schedule refuses step %d', (step) => {
  expect(() => makeSchedule('cosine', 10)(step)).toThrow(
    'Expected the step of a schedule to be an integer of at least 1',
  );
});
