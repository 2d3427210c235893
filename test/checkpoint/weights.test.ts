import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { Muon, Parameter, Root, type WeightMap } from '../../lib/index.js';
import { bits, devicesUnderTest, expectError, golden } from '../support.js';

interface Case {
  file: string;
  values: Record<string, number[]>;
}
const [{ file: bytes, values } = { file: '', values: {} }] = golden<Case>('safetensors').cases;

let folder: string;
let file: string;
beforeEach(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'root-optimizer-'));
  file = path.join(folder, 'weights.safetensors');
  writeFileSync(file, Buffer.from(bytes, 'base64'));
});
afterEach(() => {
  rmSync(folder, { recursive: true, force: true });
});

const parameter = (name: string, shape: number[]) =>
  new Parameter({ name, shape, data: new Float32Array(shape.reduce((a, b) => a * b, 1)).fill(9) });
const valuesOf = (tensor: string) => Float32Array.from(values[tensor]!);

describe.each(devicesUnderTest())('a file of Python on %s', (device) => {
  test.each(['F64', 'F32', 'F16', 'BF16'])('%s', async (type) => {
    const [weight, bias] = [parameter('weight', [2, 3]), parameter('bias', [3])];
    using optimizer = new Root([weight, bias], { device });
    const { unused } = await optimizer.loadWeights(file, { map: (name) => `${type}.${name}` });
    expect(bits(weight.data)).toBe(bits(valuesOf(`${type}.weight`)));
    expect(bits(bias.data)).toBe(bits(valuesOf(`${type}.bias`)));
    expect(unused).toHaveLength(7);
    expect(unused).toContain('steps');
    expect(optimizer.stepSync()).toMatchObject({ applied: true, step: 1 });
  });

  test('the device has what the host has', async () => {
    if (device === 'cpu') return;
    const [weight, other] = [parameter('F32.weight', [2, 3]), parameter('other', [4, 4])];
    using optimizer = new Muon([weight, other], { device, hostSync: 'manual' });
    for (const { data } of [weight, other]) data.fill(0);
    await optimizer.loadWeights(file, { map: (name) => (name === 'other' ? null : name) });
    for (const { data } of [weight, other]) data.fill(0);
    await optimizer.readParameters();
    expect(bits(weight.data)).toBe(bits(valuesOf('F32.weight')));
    expect(other.data).toEqual(new Float32Array(16).fill(9)); // as the device had it
  });
});

test('transposed, left alone, and one tensor for two parameters', async () => {
  const transposed = parameter('transposed', [3, 2]);
  const [first, second] = [parameter('first', [2, 3]), parameter('second', [2, 3])];
  const alone = parameter('alone', [4, 4]);
  using optimizer = new Root([transposed, first, second, alone]);
  await optimizer.loadWeights(file, {
    map: (name) => {
      if (name === 'alone') return null;
      return name === 'transposed' ? { tensor: 'F16.weight', transpose: true } : 'F16.weight';
    },
  });
  const [a, b, c, d, e, f] = values['F16.weight']!;
  expect(Array.from(transposed.data)).toEqual([a, d, b, e, c, f]);
  expect(bits(second.data)).toBe(bits(first.data));
  expect(alone.data).toEqual(new Float32Array(16).fill(9));
});

test('a large matrix is transposed in pieces', async () => {
  const [rows, columns] = [1500, 1001]; // 6 MB
  const from = new Parameter({ name: 'w', shape: [rows, columns] });
  from.data.forEach((_, i) => (from.data[i] = i));
  using saved = new Muon([from]);
  await saved.save(file);
  const to = new Parameter({ name: 'w', shape: [columns, rows] });
  using optimizer = new Muon([to]);
  await optimizer.loadWeights(file, { map: (name) => ({ tensor: `${name}.data`, transpose: true }) });
  expect(to.data.every((value, i) => value === (i % rows) * columns + Math.floor(i / rows))).toBe(true);
});

test.each<[string, WeightMap | undefined, string]>([
  ['no such tensor', undefined, '- "w" has no tensor "w"'],
  ['another shape', () => 'F32.bias', '- "w" is [2, 3], tensor "F32.bias" is [3]'],
  ['a transpose', () => ({ tensor: 'F32.weight', transpose: true }), 'tensor "F32.weight" is [2, 3], transposed'],
  ['another type', (name) => (name === 'w' ? 'F32.weight' : 'steps'), 'to be F64, F32, F16 or BF16, got "I64"'],
])('%s is refused, and nothing changes', async (_, map, message) => {
  const params = [parameter('w', [2, 3]), parameter('x', [1])];
  using optimizer = new Root(params);
  await expectError(() => optimizer.loadWeights(file, { map }), 'ERR_CHECKPOINT', message);
  for (const one of params) expect(one.data.every((value) => value === 9)).toBe(true);
});

test('values that are not finite in float32 are refused', async () => {
  const header = { w: { dtype: 'F64', shape: [1], data_offsets: [0, 8] } };
  const json = Buffer.from(JSON.stringify(header));
  const [length, value] = [Buffer.alloc(8), Buffer.alloc(8)];
  length.writeBigUInt64LE(BigInt(json.length));
  value.writeDoubleLE(1e39);
  writeFileSync(file, Buffer.concat([length, json, value]));
  const w = parameter('w', [1]);
  using optimizer = new Root([w]);
  await expectError(() => optimizer.loadWeights(file), 'ERR_CHECKPOINT', '"w" of');
  expect(w.data[0]).toBe(9);
});

test('what map returns and throws', async () => {
  using optimizer = new Root([parameter('w', [2, 3])]);
  const map = (() => undefined) as unknown as WeightMap;
  await expectError(() => optimizer.loadWeights(file, { map }), 'ERR_INVALID_ARGUMENT', 'Expected map("w")');
  await expectError(() => optimizer.loadWeights(file, { map: 'w' as never }), 'ERR_INVALID_ARGUMENT', 'a function');
  const own = new Error('mine');
  const throwing = () => {
    throw own;
  };
  await expect(optimizer.loadWeights(file, { map: throwing })).rejects.toBe(own);
});
