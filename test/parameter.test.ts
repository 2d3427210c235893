import { Parameter, type ParameterOptions, Root, type RootErrorCode } from '../lib/index.js';
import { expectError } from './support.js';

test.each<[number[], Partial<ParameterOptions>, number[][]]>([
  [[], {}, []],
  [[7], {}, []],
  [[4, 6], {}, [[0, 4, 6]]],
  [[4, 3, 2, 2], {}, [[0, 4, 12]]],
  [
    [6, 5],
    { split: 3 },
    [
      [0, 2, 5],
      [10, 2, 5],
      [20, 2, 5],
    ],
  ],
  [
    [6, 5],
    { split: [4, 1, 1] },
    [
      [0, 4, 5],
      [20, 1, 5],
      [25, 1, 5],
    ],
  ],
  [
    [2, 3, 4],
    { stack: true },
    [
      [0, 3, 4],
      [12, 3, 4],
    ],
  ],
  [
    [2, 3, 2, 2],
    { stack: true },
    [
      [0, 3, 4],
      [12, 3, 4],
    ],
  ],
  [
    [2, 3, 4],
    { stack: true, split: [1, 2] },
    [
      [0, 1, 4],
      [4, 2, 4],
      [12, 1, 4],
      [16, 2, 4],
    ],
  ],
])('shape %j with %j', (shape, layout, matrices) => {
  const w = new Parameter({ name: 'w', shape, ...layout });
  expect(w.matrices.map(({ offset, rows, columns }) => [offset, rows, columns])).toEqual(matrices);
  const size = shape.reduce((a, b) => a * b, 1);
  expect([w.size, w.data, w.grad]).toEqual([size, new Float32Array(size), new Float32Array(size)]);
});

test('works in the arrays it is given, which may be replaced', () => {
  const data = new Float32Array(new SharedArrayBuffer(24));
  const grad = new Float32Array(6);
  const w = new Parameter({ name: 'w', shape: [2, 3], data, grad });
  expect([w.data, w.grad]).toEqual([data, grad]);
  w.grad = w.data;
  expect(w.grad).toBe(data);
});

test('neither shape nor matrices follow changes from outside', () => {
  const shape = [2, 3];
  const w = new Parameter({ name: 'w', shape });
  shape[0] = 5;
  expect(w.shape).toEqual([2, 3]);
  expect(Object.isFrozen(w.shape) && Object.isFrozen(w.matrices) && Object.isFrozen(w.matrices[0])).toBe(true);
});

const resizable = new Float32Array(
  new (ArrayBuffer as new (length: number, options: object) => ArrayBuffer)(24, { maxByteLength: 48 }),
);

test.each<[unknown, RootErrorCode, string]>([
  [undefined, 'ERR_INVALID_ARGUMENT', 'Expected the argument of Parameter to be an object, got undefined'],
  [{ shape: [2] }, 'ERR_INVALID_ARGUMENT', 'Expected the name of a Parameter to be a non-empty string, got undefined'],
  [{ name: '', shape: [2] }, 'ERR_INVALID_ARGUMENT', 'got ""'],
  [
    { name: 'w' },
    'ERR_INVALID_ARGUMENT',
    'Expected the shape of parameter "w" to be a list of positive integers, got undefined',
  ],
  [{ name: 'w', shape: [2, 0] }, 'ERR_INVALID_ARGUMENT', 'got [2, 0]'],
  [{ name: 'w', shape: [2, -3] }, 'ERR_INVALID_ARGUMENT', 'got [2, -3]'],
  [{ name: 'w', shape: [2, '3'] }, 'ERR_INVALID_ARGUMENT', 'got an array of length 2'],
  [{ name: 'w', shape: [2 ** 30, 2 ** 30] }, 'ERR_INVALID_ARGUMENT', 'a size that an array can have'],
  [
    { name: 'w', shape: [2 ** 26, 2 ** 26] },
    'ERR_OUT_OF_MEMORY',
    'Cannot allocate the 4503599627370496 elements of parameter "w"',
  ],
  [
    { name: 'w', shape: [2, 3], values: [] },
    'ERR_INVALID_ARGUMENT',
    'Unknown option "values" of parameter "w"; there are name, shape, data, grad, shared, split, stack',
  ],
  [
    { name: 'w', shape: [2, 3], Data: [] },
    'ERR_INVALID_ARGUMENT',
    'Unknown option "Data" of parameter "w"; did you mean "data"?',
  ],
  [{ name: 'w', shape: [2, 3], gradient: [] }, 'ERR_INVALID_ARGUMENT', 'did you mean "grad"?'],
  [
    { name: 'w', shape: [2, 3], data: [1, 2, 3, 4, 5, 6] },
    'ERR_INVALID_ARGUMENT',
    'Expected data of parameter "w" to be a Float32Array of length 6, got [1, 2, 3, 4, 5, 6]',
  ],
  [{ name: 'w', shape: [2, 3], data: new Float64Array(6) }, 'ERR_INVALID_ARGUMENT', 'got Float64Array of length 6'],
  [
    { name: 'w', shape: [2, 3], data: new Float32Array(5) },
    'ERR_SHAPE_MISMATCH',
    'Expected data of parameter "w" to be of length 6, got Float32Array of length 5',
  ],
  [
    { name: 'w', shape: [2, 3], grad: new Float32Array(7) },
    'ERR_SHAPE_MISMATCH',
    'Expected grad of parameter "w" to be of length 6, got Float32Array of length 7',
  ],
  [{ name: 'w', shape: [2, 3], data: resizable }, 'ERR_INVALID_ARGUMENT', 'got a resizable ArrayBuffer'],
  [
    { name: 'w', shape: [6], split: 2 },
    'ERR_INVALID_ARGUMENT',
    'Expected the shape of parameter "w" to be of at least 2 dimensions with split, got [6]',
  ],
  [{ name: 'w', shape: [6, 2], stack: true }, 'ERR_INVALID_ARGUMENT', 'at least 3 dimensions with stack, got [6, 2]'],
  [
    { name: 'w', shape: [6, 2], stack: 1 },
    'ERR_INVALID_ARGUMENT',
    'Expected stack of parameter "w" to be true or false, got 1',
  ],
  [
    { name: 'w', shape: [6, 2], split: 4 },
    'ERR_INVALID_ARGUMENT',
    'Expected split of parameter "w" to be a divisor of the 6 rows, got 4',
  ],
  [{ name: 'w', shape: [6, 2], split: 0 }, 'ERR_INVALID_ARGUMENT', 'got 0'],
  [
    { name: 'w', shape: [6, 2], split: [4, 1] },
    'ERR_SHAPE_MISMATCH',
    'Expected split of parameter "w" to sum to the 6 rows, got [4, 1]: 5',
  ],
  [{ name: 'w', shape: [6, 2], split: [7, -1] }, 'ERR_INVALID_ARGUMENT', 'got [7, -1]'],
  [{ name: 'w', shape: [6, 2], split: 'qkv' }, 'ERR_INVALID_ARGUMENT', 'got "qkv"'],
])('refuses %p', async (options, code, message) => {
  await expectError(() => new Parameter(options as ParameterOptions), code, message);
});

test.each([['data'], ['grad']] as const)('%s is checked when it is replaced', async (property) => {
  const w = new Parameter({ name: 'w', shape: [6] });
  const before = w[property];
  const assign = (array: unknown) => () => (w[property] = array as Float32Array);
  await expectError(
    assign(new Float32Array(5)),
    'ERR_SHAPE_MISMATCH',
    `Expected ${property} of parameter "w" to be of length 6`,
  );
  await expectError(assign(null), 'ERR_INVALID_ARGUMENT', 'got null');
  expect(w[property]).toBe(before);
});

test('arrays of a shared parameter cannot be detached, and are no others', async () => {
  const w = new Parameter({ name: 'w', shape: [8, 9], shared: true });
  for (const array of [w.data, w.grad]) {
    expect(array).toHaveLength(72);
    expect(array.buffer).toBeInstanceOf(SharedArrayBuffer);
    expect(() => structuredClone(array, { transfer: [array.buffer as ArrayBuffer] })).toThrow('transferList');
  }
  w.grad.fill(0.5);
  using optimizer = new Root([w]);
  expect(await optimizer.step()).toMatchObject({ applied: true });
  const message = /Expected data of parameter "w" to be over a SharedArrayBuffer.* got an ArrayBuffer/;
  await expectError(() => (w.data = new Float32Array(72)), 'ERR_INVALID_ARGUMENT', message);
  const options = { name: 'w', shape: [2], shared: true, data: new Float32Array(2) };
  await expectError(() => new Parameter(options), 'ERR_INVALID_ARGUMENT', message);
  await expectError(() => new Parameter({ ...options, shared: 1 as never }), 'ERR_INVALID_ARGUMENT', 'shared of');
});
