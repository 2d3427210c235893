import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import {
  AdamW,
  Muon,
  type Optimizer,
  type OrthogonalState,
  Parameter,
  Root,
  type RootGroup,
  type RootOptions,
} from '../../lib/index.js';
import { bits, devicesUnderTest, expectError, gaussian } from '../support.js';

let folder: string;
let file: string;
beforeEach(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'root-optimizer-'));
  file = path.join(folder, 'run.safetensors');
});
afterEach(() => {
  rmSync(folder, { recursive: true, force: true });
});

const shapes: Record<string, number[]> = { 'mlp.up': [6, 9], conv: [4, 3, 2, 2], bias: [5], scalar: [] };

function model(): Parameter[] {
  return Object.entries(shapes).map(([name, shape], i) => {
    const parameter = new Parameter({ name, shape });
    parameter.data.set(gaussian(parameter.size, i + 1));
    return parameter;
  });
}

function run(optimizer: Optimizer, params: Parameter[], from: number, to: number): string[] {
  for (let step = from; step < to; step++) {
    params.forEach((one, i) => {
      one.grad.set(gaussian(one.size, 100 * step + i));
    });
    optimizer.stepSync();
  }
  return params.map((one) => bits(one.data)).concat(JSON.stringify(params.map((one) => optimizer.stateOf(one))));
}

type Header = Record<string, { dtype: string; shape: number[]; data_offsets: [number, number] } | undefined>;

function readHeader(from = file): Header & { __metadata__: Record<string, string> } {
  const bytes = readFileSync(from);
  return JSON.parse(bytes.subarray(8, 8 + Number(bytes.readBigUInt64LE(0))).toString()) as ReturnType<
    typeof readHeader
  >;
}

/** Rewrites the header; the tensors' bytes stay. */
function rewriteHeader(change: (header: Header & { __metadata__: Record<string, string> }) => unknown): void {
  const bytes = readFileSync(file);
  const header = readHeader();
  const json = Buffer.from(JSON.stringify(change(header) ?? header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.length));
  writeFileSync(file, Buffer.concat([length, json, bytes.subarray(8 + Number(bytes.readBigUInt64LE(0)))]));
}

describe.each(devicesUnderTest())('on %s', (device) => {
  test.each([
    ['Root', Root],
    ['Muon', Muon],
    ['AdamW', AdamW],
  ] as const)('%s goes on bit for bit', async (_, Kind) => {
    const [uninterrupted, before, after] = [model(), model(), model()];
    using whole = new Kind(uninterrupted, { device });
    using first = new Kind(before, { device });
    using second = new Kind(after, { device });
    run(first, before, 0, 3);
    await first.save(file);
    expect(await second.load(file)).toEqual({ step: 3, notes: {}, tensors: {} });
    expect(run(second, after, 3, 6)).toEqual(run(whole, uninterrupted, 0, 6));
  });

  test('goes on bit for bit through a time without clipping', async () => {
    const [uninterrupted, after] = [model(), model()];
    using whole = new Root(uninterrupted, { device });
    using second = new Root(after, { device });
    run(whole, uninterrupted, 0, 3);
    (whole.paramGroups[0] as RootGroup).threshold = null;
    run(whole, uninterrupted, 3, 5);
    await whole.save(file);
    await second.load(file, { options: 'ignore' });
    (whole.paramGroups[0] as RootGroup).threshold = { quantile: 0.9, scale: 1 };
    expect(run(second, after, 5, 8)).toEqual(run(whole, uninterrupted, 5, 8));
  });
});

test('the file is a safetensors file with everything in it', async () => {
  const params = model();
  using optimizer = new Root(params);
  run(optimizer, params, 0, 2);
  await optimizer.save(file);
  const { __metadata__: metadata, ...tensors } = readHeader();
  expect(Object.keys(tensors)).toEqual([
    'mlp.up.data',
    'mlp.up.momentumBuffer',
    'conv.data',
    'conv.momentumBuffer',
    'bias.data',
    'bias.expAvg',
    'bias.expAvgSq',
    'scalar.data',
    'scalar.expAvg',
    'scalar.expAvgSq',
  ]);
  expect(tensors['conv.data']).toMatchObject({ dtype: 'F32', shape: [4, 3, 2, 2] });
  expect(metadata).toMatchObject({ format: 'root-optimizer', version: '2', step: '2' });
  expect(JSON.parse(metadata['groups']!)).toMatchObject([
    { algorithm: 'root', settings: { lr: 0.02, coefficients: 'adaptive' } },
    { algorithm: 'adamw', settings: { betas: [0.9, 0.95] } },
  ]);
  const parameters = JSON.parse(metadata['parameters']!) as object[];
  const { thresholds } = optimizer.stateOf(params[0]!) as OrthogonalState;
  expect(parameters[0]).toMatchObject({
    name: 'mlp.up',
    group: 0,
    matrices: [[6, 9]],
    thresholds,
  });
  expect(parameters[2]).toMatchObject({ name: 'bias', group: 1 });

  const bytes = readFileSync(file);
  const begin = 8 + Number(bytes.readBigUInt64LE(0));
  expect(begin % 8).toBe(0);
  const [from, to] = tensors['mlp.up.data']!.data_offsets;
  expect(new Float32Array(bytes.buffer.slice(bytes.byteOffset + begin + from, bytes.byteOffset + begin + to))).toEqual(
    params[0]!.data,
  );
  expect(readdirSync(folder)).toEqual(['run.safetensors']);
});

test('before the first step, and over an older file behind a link', async () => {
  writeFileSync(file, 'older');
  const link = path.join(folder, 'latest');
  symlinkSync(file, link);
  using optimizer = new Root(model());
  await optimizer.save(link);
  expect(await optimizer.load(file)).toEqual({ step: 0, notes: {}, tensors: {} });
  expect(optimizer.paramGroups[0]!.params.map((one) => optimizer.stateOf(one))).toMatchObject([
    { threshold: null },
    { threshold: null },
  ]);
  expect(readdirSync(folder).sort()).toEqual(['latest', 'run.safetensors']);
});

describe('load compares', () => {
  async function differ(params: Parameter[], options: RootOptions, change?: (optimizer: Root) => void): Promise<Root> {
    using saved = new Root(model());
    await saved.save(file);
    const optimizer = new Root(params, options);
    change?.(optimizer);
    return optimizer;
  }

  test.each<[string, () => Parameter[], RootOptions, string[]]>([
    [
      'settings',
      model,
      { momentum: 0.9, threshold: null, adamw: { betas: [0.8, 0.9] } },
      [
        '- "mlp.up": momentum 0.95 in the file, 0.9 here',
        '- "mlp.up": threshold {"quantile":0.9,"scale":1} in the file, null here',
        '- "bias": betas [0.9,0.95] in the file, [0.8,0.9] here',
      ],
    ],
    [
      'shapes',
      () => [new Parameter({ name: 'mlp.up', shape: [9, 6] }), ...model().slice(1)],
      {},
      ['- "mlp.up": shape [6,9] in the file, [9,6] here'],
    ],
    [
      'splits',
      () => [new Parameter({ name: 'mlp.up', shape: [6, 9], split: 2 }), ...model().slice(1)],
      {},
      ['- "mlp.up": matrices [[6,9]] in the file, [[3,9],[3,9]] here'],
    ],
    [
      'names',
      () => [new Parameter({ name: 'mlp.down', shape: [6, 9] }), ...model().slice(1)],
      {},
      ['- "mlp.down" is not in the file', '- "mlp.up" is in the file only'],
    ],
  ])('%s', async (_, make, options, lines) => {
    using optimizer = await differ(make(), options);
    for (const line of lines) await expectError(() => optimizer.load(file), 'ERR_CHECKPOINT', line);
  });

  test('algorithms', async () => {
    using saved = new Root(model());
    await saved.save(file);
    using optimizer = new AdamW(model());
    await expectError(
      () => optimizer.load(file, { options: 'ignore' }),
      'ERR_CHECKPOINT',
      '- "mlp.up": algorithm "root" in the file, "adamw" here',
    );
  });

  test('not the learning rate, and no settings where they are to be ignored', async () => {
    using other = await differ(model(), { lr: 7, adamw: { lr: 9 } });
    await other.load(file);
    expect(other.paramGroups.map((group) => group.lr)).toEqual([7, 9]);
    using optimizer = await differ(model(), { momentum: 0.9 });
    await optimizer.load(file, { options: 'ignore' });
    expect(optimizer.paramGroups[0]).toMatchObject({ momentum: 0.9 });
  });

  test('a long list is cut', async () => {
    const params = Array.from({ length: 20 }, (_, i) => new Parameter({ name: `p${i}`, shape: [2, 2] }));
    using saved = new Root(params);
    await saved.save(file);
    using optimizer = new Root(params, { steps: 3 });
    await expectError(() => optimizer.load(file), 'ERR_CHECKPOINT', /"p9".*\n- and 10 more differences$/);
  });
});

describe('a file that is not sound leaves everything as it is', () => {
  const cut = (length: number) => () => {
    writeFileSync(file, readFileSync(file).subarray(0, length));
  };
  const data = (name: string) => (header: Header) => header[name]!;
  test.each<[string, () => unknown, string | RegExp]>([
    [
      'none',
      () => {
        rmSync(file);
      },
      /^Cannot read .*ENOENT/,
    ],
    [
      'a folder',
      () => {
        rmSync(file);
        mkdirSync(file);
      },
      /^Cannot read |not a valid safetensors/,
    ],
    ['empty', cut(0), 'it is 0 bytes long'],
    ['cut in the header', cut(100), 'does not fit into 100'],
    [
      'cut in the tensors',
      () => {
        cut(readFileSync(file).length - 4)();
      },
      /it is \d+ bytes long rather than \d+$/,
    ],
    [
      'too long',
      () => {
        writeFileSync(file, Buffer.concat([readFileSync(file), Buffer.alloc(4)]));
      },
      /it is \d+ bytes long rather than \d+$/,
    ],
    [
      'text',
      () => {
        writeFileSync(file, 'hello, this is no checkpoint');
      },
      'does not fit into 28',
    ],
    [
      'a header that is not JSON',
      () => {
        const bytes = readFileSync(file);
        bytes[9] = 1;
        writeFileSync(file, bytes);
      },
      'its header is not JSON',
    ],
    [
      'a header that is not UTF-8',
      () => {
        const bytes = readFileSync(file);
        bytes[10] = 0xff;
        writeFileSync(file, bytes);
      },
      'its header is not JSON',
    ],
    [
      'a header that is a list',
      () => {
        rewriteHeader(() => []);
      },
      'its header is not an object',
    ],
    [
      'another dtype',
      () => {
        rewriteHeader((header) => {
          data('bias.data')(header).dtype = 'F16';
        });
      },
      'tensor "bias.data" takes 20 bytes rather than 10',
    ],
    [
      'a dtype that is none of ours',
      () => {
        rewriteHeader((header) => {
          data('bias.data')(header).dtype = 'I32';
        });
      },
      'Expected tensor "bias.data" of',
    ],
    [
      'offsets that overlap',
      () => {
        rewriteHeader((header) => {
          data('conv.data')(header).data_offsets = data('conv.momentumBuffer')(header).data_offsets;
        });
      },
      /begins at byte \d+ rather than \d+/,
    ],
    [
      'a tensor inside another',
      () => {
        rewriteHeader((header) => {
          header['further'] = header['bias.data'];
        });
      },
      /tensor "further" begins at byte \d+ rather than \d+/,
    ],
    [
      'offsets beyond the end',
      () => {
        rewriteHeader((header) => {
          data('scalar.expAvgSq')(header).data_offsets = [1e12, 1e12 + 4];
        });
      },
      /begins at byte \d+ rather than \d+/,
    ],
    [
      'negative offsets',
      () => {
        rewriteHeader((header) => {
          data('bias.data')(header).data_offsets = [-4, 16];
        });
      },
      'the entry of tensor "bias.data" is not valid',
    ],
    [
      'a shape of another size',
      () => {
        rewriteHeader((header) => {
          data('bias.data')(header).shape = [6];
        });
      },
      'tensor "bias.data" takes 20 bytes rather than 24',
    ],
    [
      'another shape of that size',
      () => {
        rewriteHeader((header) => {
          data('mlp.up.momentumBuffer')(header).shape = [9, 6];
        });
      },
      'Expected tensor "mlp.up.momentumBuffer"',
    ],
    [
      'a missing tensor',
      () => {
        rewriteHeader(
          (header) => JSON.parse(JSON.stringify(header).replace('bias.expAvgSq', 'bias.renamed')) as object,
        );
      },
      'Expected tensor "bias.expAvgSq"',
    ],
    [
      "another program's",
      () => {
        rewriteHeader((header) => {
          header.__metadata__ = { format: 'pt' };
        });
      },
      'is not a checkpoint of root-optimizer',
    ],
    [
      'no metadata',
      () => {
        rewriteHeader(({ __metadata__: _, ...header }) => header);
      },
      'is not a checkpoint of root-optimizer',
    ],
    [
      'a later version',
      () => {
        rewriteHeader((header) => {
          header.__metadata__['version'] = '3';
        });
      },
      'to be a checkpoint of version 1 or 2, got version "3"',
    ],
    [
      'a bad step',
      () => {
        rewriteHeader((header) => {
          header.__metadata__['step'] = '-1';
        });
      },
      'are not those of a checkpoint',
    ],
    [
      'parameters that are not JSON',
      () => {
        rewriteHeader((header) => {
          header.__metadata__['parameters'] = '[';
        });
      },
      'are not JSON',
    ],
    [
      'parameters of another form',
      () => {
        rewriteHeader((header) => {
          header.__metadata__['parameters'] = '[{}]';
        });
      },
      'are not those of a checkpoint',
    ],
    [
      'groups that are missing',
      () => {
        rewriteHeader((header) => {
          header.__metadata__['groups'] = '[]';
        });
      },
      'are not those of a checkpoint',
    ],
    [
      'data that are not finite',
      () => {
        const bytes = readFileSync(file);
        bytes.writeFloatLE(Infinity, bytes.length - 12);
        writeFileSync(file, bytes);
      },
      'Expected tensor "scalar.data"',
    ],
    [
      'lists within lists',
      () => {
        rewriteHeader((header) => {
          const deep = `${'['.repeat(50_000)}${']'.repeat(50_000)}`;
          const groups = header.__metadata__['groups']!;
          header.__metadata__['groups'] = groups.replace('"adaptive"', deep);
        });
      },
      /^Cannot read .*run\.safetensors: /,
    ],
    [
      'a state that is not finite',
      () => {
        const bytes = readFileSync(file);
        bytes.writeFloatLE(NaN, bytes.length - 4);
        writeFileSync(file, bytes);
      },
      'Expected tensor "scalar.expAvgSq"',
    ],
    [
      'a negative second moment',
      () => {
        const bytes = readFileSync(file);
        bytes.writeFloatLE(-1, bytes.length - 4);
        writeFileSync(file, bytes);
      },
      'to be finite and at least 0',
    ],
  ])('%s', async (_, damage, message) => {
    const params = model();
    using optimizer = new Root(params);
    run(optimizer, params, 0, 2);
    await optimizer.save(file);
    const before = run(optimizer, params, 2, 3);
    damage();
    await expectError(() => optimizer.load(file), 'ERR_CHECKPOINT', message);
    expect(run(optimizer, params, 3, 3)).toEqual(before);
  });
});

describe('a save that fails leaves the older file whole', () => {
  async function failing(target: string, message: RegExp): Promise<void> {
    using optimizer = new Root([new Parameter({ name: 'w', shape: [200, 200] })]);
    await expectError(() => optimizer.save(target), 'ERR_CHECKPOINT', message);
  }

  test('a folder that does not exist', () => failing(path.join(folder, 'none', 'x'), /^Cannot write .*ENOENT/));

  test('a folder in the place of the file', async () => {
    mkdirSync(file);
    await failing(file, /^Cannot write /);
    expect(readdirSync(folder)).toEqual(['run.safetensors']);
  });

  const asRoot = process.getuid?.() === 0;
  (asRoot ? test.skip : test)('a folder that may not be written to', async () => {
    chmodSync(folder, 0o500);
    await failing(file, /^Cannot write .*EACCES/);
    chmodSync(folder, 0o700);
  });

  const mounted = asRoot && mountsTmpfs();
  (mounted ? test : test.skip)('a full disk (needs root, to mount one)', async () => {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', folder]);
    try {
      writeFileSync(file, 'older');
      await failing(file, /^Cannot write .*ENOSPC/);
      expect(readdirSync(folder)).toEqual(['run.safetensors']);
      expect(readFileSync(file, 'utf8')).toBe('older');
    } finally {
      execFileSync('umount', [folder]);
    }
  });
});

function mountsTmpfs(): boolean {
  const probe = mkdtempSync(path.join(tmpdir(), 'root-optimizer-'));
  try {
    execFileSync('mount', ['-t', 'tmpfs', 'tmpfs', probe], { stdio: 'ignore' });
    execFileSync('umount', [probe]);
    return true;
  } catch {
    return false;
  } finally {
    rmSync(probe, { recursive: true });
  }
}

test('one thing at a time', async () => {
  const params = model();
  using optimizer = new Root(params);
  const saving = optimizer.save(file);
  await expectError(() => optimizer.step(), 'ERR_BUSY', 'Expected the save that is running to be awaited first');
  await saving;
  const loading = optimizer.load(file);
  await expectError(() => optimizer.stepSync(), 'ERR_BUSY', 'Expected the load that is running to be awaited first');
  await loading;
  expect(optimizer.stepSync()).toMatchObject({ applied: true });
});

test('data that is detached while a save runs', async () => {
  const [a, b] = [1, 2].map(
    (seed) => new Parameter({ name: `w${seed}`, shape: [500, 500], data: gaussian(250_000, seed) }),
  );
  using optimizer = new Root([a!, b!]);
  const file = path.join(folder, 'detached.safetensors');
  await optimizer.save(file);
  const before = readFileSync(file);
  const saving = optimizer.save(file);
  const kept = structuredClone(b!.data.buffer as ArrayBuffer, { transfer: [b!.data.buffer as ArrayBuffer] });
  await expectError(() => saving, 'ERR_INVALID_ARGUMENT', /data of parameter "w2".*detached/);
  expect(kept.byteLength).toBe(1_000_000);
  expect(readFileSync(file).equals(before)).toBe(true);
  expect(readdirSync(folder).filter((name) => name.includes('.tmp'))).toEqual([]);
});

test('disposed meanwhile', async () => {
  const params = model();
  using saved = new Root(params);
  await saved.save(file);
  const optimizer = new Root(params);
  const before = params.map((one) => bits(one.data));
  const loading = optimizer.load(file);
  optimizer.dispose();
  await expectError(() => loading, 'ERR_DISPOSED', 'disposed');
  expect(params.map((one) => bits(one.data))).toEqual(before);

  const other = new Root(model());
  const saving = other.save(path.join(folder, 'other'));
  other.dispose();
  await expectError(() => saving, 'ERR_DISPOSED', 'disposed');
  expect(existsSync(path.join(folder, 'other'))).toBe(false);
  expect(readdirSync(folder)).toEqual(['run.safetensors']);
});

test.each([[undefined], [''], [3]])('refuses %p for a path', async (name) => {
  using optimizer = new Root(model());
  await expectError(
    () => optimizer.save(name as string),
    'ERR_INVALID_ARGUMENT',
    'Expected path to be the name of a file',
  );
  await expectError(
    () => optimizer.load(name as string),
    'ERR_INVALID_ARGUMENT',
    'Expected path to be the name of a file',
  );
});

test('refuses unknown options', async () => {
  using optimizer = new Root(model());
  await expectError(
    () => optimizer.load(file, { option: 'ignore' } as object),
    'ERR_INVALID_ARGUMENT',
    'Unknown option "option" of load; did you mean "options"?',
  );
  await expectError(
    () => optimizer.load(file, { options: 'no' } as object),
    'ERR_INVALID_ARGUMENT',
    'Expected options to be one of "check", "ignore", got "no"',
  );
});
