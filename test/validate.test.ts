import { Parameter, Root } from '../lib/index.js';

const weight = () => [new Parameter({ name: 'w', shape: [2, 3] })];

test('a number in a half-open interval has to be in it as a float32 too', () => {
  expect(() => new Root(weight(), { momentum: 0.99999999999 })).toThrow(
    'Expected momentum to be in [0, 1) as a float32, got 0.99999999999',
  );
  expect(() => new Root(weight(), { lr: 1e39 })).toThrow('as a float32, got 1e+39');
});

test('options are plain objects: what a Map holds are no properties', () => {
  expect(() => new Root(weight(), new Map([['lr', 1]]) as object)).toThrow(
    'Expected the options to be an object, got a Map',
  );
  expect(() => new Root(weight(), new Date() as object)).toThrow('Expected the options to be an object, got a Date');
});
