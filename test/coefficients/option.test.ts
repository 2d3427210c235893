import { type Coefficients, newtonSchulzCoefficients, type Preset, type Triple } from '../../lib/index.js';
import { expectError } from '../support.js';

/** The least and the largest value of the composition on [0, 1]. */
function range(triples: readonly Triple[]): [number, number] {
  const points = 20_000;
  let [least, most] = [Infinity, -Infinity];
  for (let i = 0; i <= points; i++) {
    let x = i / points;
    for (const [a, b, c] of triples) x *= a + x * x * (b + c * x * x);
    least = Math.min(least, x);
    most = Math.max(most, x);
  }
  return [least, most];
}

const bounded: Preset[] = ['muon', 'polar-express', 'cans', 'quintic', 'deepseek-v4', 'adaptive'];

test.each(bounded)('%s maps [0, 1] into [0, 1.25] at 5 or more iterations', (preset) => {
  for (const steps of [5, 6, 7, 8, 9, 10, 20, 100]) {
    const [least, most] = range(newtonSchulzCoefficients([512, 2048], preset, steps));
    expect(least).toBeGreaterThanOrEqual(0);
    expect(most).toBeLessThanOrEqual(1.25);
  }
});

test.each<[Preset, number]>([
  ['muon', 1.21],
  ['polar-express', 2],
  ['cans', 2],
  ['quintic', 1.28],
])('%s overshoots to at most %f on the way', (preset, limit) => {
  for (const steps of [1, 2, 3, 4]) {
    const [least, most] = range(newtonSchulzCoefficients([512, 2048], preset, steps));
    expect(least).toBeGreaterThanOrEqual(0);
    expect(most).toBeLessThanOrEqual(limit);
  }
});

test('cubic5 maps [0, 1] into [0, 1.3], on the way as well', () => {
  for (const steps of [1, 2, 3, 4, 5, 6, 100]) {
    const [least, most] = range(newtonSchulzCoefficients([512, 2048], 'cubic5', steps));
    expect(least).toBeGreaterThanOrEqual(0);
    expect(most).toBeLessThanOrEqual(1.30001);
  }
});

test('deepseek-v4 has ten iterations by default, the last two of another kind', () => {
  const triples = newtonSchulzCoefficients([8, 9], 'deepseek-v4');
  expect(triples).toHaveLength(10);
  expect(triples.slice(7)).toEqual([
    [3.4445, -4.775, 2.0315],
    [2, -1.5, 0.5],
    [2, -1.5, 0.5],
  ]);
});

test('the published 2048 × 2048 triple is not bounded', () => {
  expect(range(newtonSchulzCoefficients([2048, 2048], 'paper', 6))[1]).toBeGreaterThan(2);
});

test.each<[number[], Preset, number, number | undefined, Triple[]]>([
  [
    [2048, 2048],
    'paper',
    2,
    undefined,
    [
      [3.4916, -4.8224, 2.1095],
      [3.4916, -4.8224, 2.1095],
    ],
  ],
  [[3072, 2048], 'paper', 1, undefined, [[3.4509, -4.579, 1.9325]]],
  [[2048, 8192], 'paper', 1, undefined, [[2.9794, -3.6674, 1.6207]]],
  [[16384, 2048], 'paper', 1, undefined, [[3.1943, -3.8221, 1.5322]]],
  [[64, 64], 'paper', 1, undefined, [[3.4445, -4.775, 2.0315]]],
  [
    [8, 9],
    'muon',
    2,
    undefined,
    [
      [3.4445, -4.775, 2.0315],
      [3.4445, -4.775, 2.0315],
    ],
  ],
  [
    [8, 9],
    'cans',
    6,
    4,
    [
      [2.2737, -1.6447, 0.4162],
      [2.2737, -1.6447, 0.4162],
    ],
  ],
  [
    [8, 9],
    'quintic',
    5,
    3,
    [
      [2.8769, -3.1427, 1.2046],
      [2.8366, -3.0525, 1.2012],
    ],
  ],
  [
    [8, 9],
    'polar-express',
    8,
    6,
    [
      [1.875 / 1.01, -1.25 / 1.01 ** 3, 0.375 / 1.01 ** 5],
      [1.875 / 1.01, -1.25 / 1.01 ** 3, 0.375 / 1.01 ** 5],
    ],
  ],
])('%j %s, %i iterations', (shape, preset, steps, from, expected) => {
  const triples = newtonSchulzCoefficients(shape, preset, steps);
  expect(triples).toHaveLength(steps);
  expect(triples.slice(from)).toEqual(expected);
});

test('a list is cut or its last triple repeated; alone it runs in full, at least 5 times', () => {
  const list: Triple[] = [
    [1, 0, 0],
    [2, 0, 0],
    [3, 0, 0],
    [4, 0, 0],
    [5, 0, 0],
    [6, 0, 0],
  ];
  const firsts = (coefficients: Coefficients, steps?: number) =>
    newtonSchulzCoefficients([2, 3], coefficients, steps).map(([a]) => a);
  expect(firsts(list)).toEqual([1, 2, 3, 4, 5, 6]);
  expect(firsts(list, 2)).toEqual([1, 2]);
  expect(firsts(list.slice(0, 3))).toEqual([1, 2, 3, 3, 3]);
  expect(firsts([7, 0, 0], 3)).toEqual([7, 7, 7]);
});

test('defaults, and results that cannot be changed', () => {
  const triples = newtonSchulzCoefficients([8, 9]);
  expect(triples).toEqual(newtonSchulzCoefficients([8, 9], 'adaptive', 5));
  expect(Object.isFrozen(triples)).toBe(true);
  expect(() => ((triples[0] as [number, number, number])[0] = 0)).toThrow(TypeError);
  expect(newtonSchulzCoefficients([4, 2, 1024], 'paper')).toEqual(newtonSchulzCoefficients([4, 2048], 'paper'));
});

test.each<[unknown, unknown, unknown, string]>([
  [[8], 'muon', 5, 'Expected shape to be of at least 2 dimensions, got [8]'],
  [[8, 1.5], 'muon', 5, 'Expected shape to be a list of positive integers, got [8, 1.5]'],
  ['8x9', 'muon', 5, 'got "8x9"'],
  [
    [8, 9],
    'Muon',
    5,
    'Expected coefficients to be one of "muon", "paper", "polar-express", "cans", "quintic", "deepseek-v4", ' +
      '"cubic5", "adaptive", [a, b, c], ' +
      'a list of [a, b, c] or a calibration, got "Muon"',
  ],
  [[8, 9], 'toString', 5, 'got "toString"'],
  [[8, 9], [], 5, 'got []'],
  [[8, 9], [1, 2], 5, 'Expected coefficients to be three finite numbers [a, b, c], got [1, 2]'],
  [
    [8, 9],
    [
      [1, 2, 3],
      [1, 2, NaN],
    ],
    5,
    'Expected coefficients[1] to be three finite numbers [a, b, c], got [1, 2, NaN]',
  ],
  [[8, 9], [1, 2, 1e39], 5, 'got [1, 2, 1e+39]'],
  [[8, 9], [1, 2, '3'], 5, 'got an array of length 3'],
  [[8, 9], { a: 1 }, 5, 'got an Object'],
  [[8, 9], 'muon', 0, 'Expected steps to be an integer in [1, 100], got 0'],
  [[8, 9], 'muon', 101, 'got 101'],
  [[8, 9], 'muon', 2.5, 'got 2.5'],
])('refuses %j %j %j', async (shape, coefficients, steps, message) => {
  const call = () => newtonSchulzCoefficients(shape as number[], coefficients as Coefficients, steps as number);
  await expectError(call, 'ERR_INVALID_ARGUMENT', message);
});
