import {
  AdamW,
  type GroupOptions,
  Muon,
  type Optimizer,
  Parameter,
  type ParamGroup,
  Root,
  type RootOptions,
} from '../../lib/index.js';
import { bits, expectError, gaussian } from '../support.js';

const parameters = (...shapes: number[][]) => shapes.map((shape, i) => new Parameter({ name: `p${i}`, shape }));

/** The groups as plain objects, with the names of their parameters. */
function plain(optimizer: Optimizer): Record<string, unknown>[] {
  return optimizer.paramGroups.map((group) => ({ ...group, params: group.params.map((one) => one.name).join() }));
}

const root = {
  algorithm: 'root',
  lr: 0.02,
  momentum: 0.95,
  nesterov: true,
  weightDecay: 0.1,
  threshold: { quantile: 0.9, scale: 1 },
  coefficients: 'adaptive',
  steps: 5,
  lrScale: 'rms',
  normalize: null,
  beta2: 0.95,
  gradientThreshold: { quantile: 0.99, scale: 1, growth: 2 },
  weightDecayKind: 'decoupled',
};
const { threshold: _, ...withoutThreshold } = root;
const muon = { ...withoutThreshold, algorithm: 'muon', gradientThreshold: null };
const adamw = {
  algorithm: 'adamw',
  lr: 3e-3,
  betas: [0.9, 0.95],
  eps: 1e-8,
  weightDecay: 0.1,
  gradientThreshold: null,
  weightDecayKind: 'decoupled',
};

describe('routing and defaults', () => {
  const [w, bias, conv, scalar] = parameters([4, 5], [5], [4, 3, 2, 2], []) as [
    Parameter,
    Parameter,
    Parameter,
    Parameter,
  ];
  test.each<[string, () => Optimizer, object[]]>([
    [
      'Root, flat',
      () => new Root([bias, w, scalar, conv]),
      [
        { ...root, params: 'p0,p2' },
        { ...adamw, params: 'p1,p3' },
      ],
    ],
    [
      'Muon, flat',
      () => new Muon([w, bias]),
      [
        { ...muon, params: 'p0' },
        { ...adamw, params: 'p1' },
      ],
    ],
    ['AdamW, flat', () => new AdamW([w, bias]), [{ ...adamw, lr: 1e-3, params: 'p0,p1' }]],
    ['vectors only', () => new Root([bias, scalar]), [{ ...adamw, params: 'p1,p3' }]],
    [
      'groups',
      () => new Root([{ params: [w], lr: 1 }, { params: [conv], algorithm: 'adamw', lr: 2 }, { params: [bias] }]),
      [
        { ...root, lr: 1, params: 'p0' },
        { ...adamw, lr: 2, params: 'p2' },
        { ...adamw, params: 'p1' },
      ],
    ],
    [
      'mixed groups',
      () =>
        new Root([
          { params: [w, bias], weightDecay: 0 },
          { params: [conv, scalar], lr: 1 },
        ]),
      [
        { ...root, weightDecay: 0, params: 'p0' },
        { ...root, lr: 1, params: 'p2' },
        { ...adamw, weightDecay: 0, params: 'p1' },
        { ...adamw, params: 'p3' },
      ],
    ],
    [
      'Muon beside ROOT',
      () =>
        new Root([
          { params: [w], algorithm: 'muon' },
          { params: [conv], algorithm: 'root' },
        ]),
      [
        { ...muon, params: 'p0' },
        { ...root, params: 'p2' },
      ],
    ],
    ['ROOT in Muon', () => new Muon([{ params: [w], algorithm: 'root' }]), [{ ...root, params: 'p0' }]],
    [
      'top-level options',
      () =>
        new Root([w, bias], {
          lr: 1,
          momentum: 0,
          nesterov: false,
          weightDecay: 2,
          threshold: null,
          coefficients: [2, -1.5, 0.5],
          steps: 7,
          lrScale: 'none',
        }),
      [
        {
          ...root,
          lr: 1,
          momentum: 0,
          nesterov: false,
          weightDecay: 2,
          threshold: null,
          coefficients: [2, -1.5, 0.5],
          steps: 7,
          lrScale: 'none',
          params: 'p0',
        },
        { ...adamw, weightDecay: 2, params: 'p1' },
      ],
    ],
    [
      'options of AdamW in Root',
      () => new Root([w, bias], { adamw: { lr: 1, betas: [0, 0.5], eps: 1, weightDecay: 3 } }),
      [
        { ...root, params: 'p0' },
        { ...adamw, lr: 1, betas: [0, 0.5], eps: 1, weightDecay: 3, params: 'p1' },
      ],
    ],
    [
      'the method of the paper',
      () => new Root([w, bias], { gradientThreshold: null, normalize: null }),
      [
        { ...root, gradientThreshold: null, params: 'p0' },
        { ...adamw, params: 'p1' },
      ],
    ],
    [
      'a gradient threshold for the matrices of all groups',
      () =>
        new Root([{ params: [w] }, { params: [conv], algorithm: 'muon' }, { params: [bias] }], {
          gradientThreshold: { growth: null },
        }),
      [
        { ...root, gradientThreshold: { quantile: 0.99, scale: 1, growth: null }, params: 'p0' },
        { ...muon, gradientThreshold: { quantile: 0.99, scale: 1, growth: null }, params: 'p2' },
        { ...adamw, params: 'p1' },
      ],
    ],
    [
      'a gradient threshold of one group',
      () => new Root([{ params: [w], gradientThreshold: null }, { params: [conv] }]),
      [
        { ...root, gradientThreshold: null, params: 'p0' },
        { ...root, params: 'p2' },
      ],
    ],
    [
      'a gradient threshold of AdamW in Root',
      () => new Root([w, bias], { adamw: { gradientThreshold: 'robust' } }),
      [
        { ...root, params: 'p0' },
        { ...adamw, gradientThreshold: { quantile: 0.5, scale: 3.5 / 0.6745, growth: 2 }, params: 'p1' },
      ],
    ],
    [
      'undefined is absent',
      () =>
        new Root([{ params: [w], lr: undefined, threshold: undefined, gradientThreshold: undefined }], {
          ...{ lr: 1, momentum: undefined, gradientThreshold: undefined },
        }),
      [{ ...root, lr: 1, params: 'p0' }],
    ],
    [
      'null overrides',
      () => new Root([{ params: [w], threshold: null }]),
      [{ ...root, threshold: null, params: 'p0' }],
    ],
    [
      'part of a threshold',
      () => new Root([w], { threshold: { scale: 2 } }),
      [{ ...root, threshold: { quantile: 0.9, scale: 2 }, params: 'p0' }],
    ],
    [
      'the robust threshold',
      () => new Root([w], { threshold: 'robust' }),
      [{ ...root, threshold: { quantile: 0.5, scale: 3.5 / 0.6745 }, params: 'p0' }],
    ],
    [
      'steps of a long list',
      () =>
        new Root([
          { params: [w], coefficients: Array.from({ length: 6 }, () => [1, 0, 0] as const) },
          { params: [conv], steps: 2 },
        ]),
      [
        { ...root, coefficients: Array.from({ length: 6 }, () => [1, 0, 0]), steps: 6, params: 'p0' },
        { ...root, steps: 2, params: 'p2' },
      ],
    ],
  ])('%s', (_name, make, groups) => {
    using optimizer = make();
    expect(plain(optimizer)).toEqual(groups);
  });
});

/** Values that the option of that name refuses, and what the message says was expected. */
const bad: [keyof RootOptions, unknown[], string][] = [
  ['lr', [-1, NaN, Infinity, 1e39, '0.1', null, [0.1]], 'lr%s to be in [0, ∞)'],
  ['momentum', [1, 1.2, -0.1, NaN, '0.9', true], 'momentum%s to be in [0, 1)'],
  ['nesterov', [0, 'yes', null], 'nesterov%s to be true or false'],
  ['weightDecay', [-0.1, NaN, Infinity, '0'], 'weightDecay%s to be in [0, ∞)'],
  ['threshold', [0.9, 'median', true, [0.9, 1]], 'threshold%s to be null, "robust" or { quantile, scale }'],
  ['threshold', [{ quantile: 1.5 }, { quantile: -1 }, { quantile: '0.9' }], 'threshold%s.quantile to be in [0, 1]'],
  ['threshold', [{ scale: 0 }, { scale: -1 }, { scale: Infinity }], 'threshold%s.scale to be in (0, ∞)'],
  ['coefficients', ['muoon', [], 3, null, {}], 'coefficients%s to be one of "muon", "paper"'],
  ['steps', [0, -1, 2.5, 101, '5', NaN], 'steps%s to be an integer in [1, 100]'],
  ['lrScale', ['RMS', 0.2, null], 'lrScale%s to be one of "rms", "spectral", "none"'],
];

describe('refused where it is given', () => {
  const [w, bias] = parameters([4, 5], [5]) as [Parameter, Parameter];
  test.each(bad.map(([key, values, text]) => ({ key, values, text })))(
    '$key: $values',
    async ({ key, values, text }) => {
      using optimizer = new Root([w]);
      const group = optimizer.paramGroups[0] as unknown as Record<string, unknown>;
      const before = group[key];
      for (const value of values) {
        await expectError(
          () => new Root([w], { [key]: value }),
          'ERR_INVALID_ARGUMENT',
          `Expected ${text.replace('%s', '')}`,
        );
        await expectError(
          () => new Root([{ params: [w], [key]: value }]),
          'ERR_INVALID_ARGUMENT',
          `Expected ${text.replace('%s', ' of group 0')}`,
        );
        await expectError(() => (group[key] = value), 'ERR_INVALID_ARGUMENT', `Expected ${text.replace('%s', '')}`);
        expect(group[key]).toBe(before);
      }
    },
  );

  test.each<[object, string]>([
    [{ device: 'gpu' }, 'Expected device to be one of "auto", "cpu", "cuda", "cuda:N", got "gpu"'],
    [{ device: 'cuda:x' }, 'got "cuda:x"'],
    [{ device: 0 }, 'got 0'],
    [{ threads: -1 }, 'Expected threads to be an integer in [0, 1024], got -1'],
    [{ threads: 1.5 }, 'got 1.5'],
    [{ precision: 'float8' }, 'one of "auto", "float16", "bfloat16", "bfloat16x3", "float32", got "float8"'],
    [{ nonFinite: 'ignore' }, 'Expected nonFinite to be one of "error", "skip", got "ignore"'],
    [{ adamw: 0.1 }, 'Expected adamw to be an object, got 0.1'],
    [{ adamw: { lr: -1 } }, 'Expected adamw.lr to be in [0, ∞), got -1'],
    [{ adamw: { betas: [0.9] } }, 'Expected adamw.betas to be two numbers in [0, 1), got [0.9]'],
    [{ adamw: { betas: [0.9, 1] } }, 'Expected adamw.betas[1] to be in [0, 1), got 1'],
    [{ adamw: { eps: 0 } }, 'Expected adamw.eps to be in [1e-37, ∞), got 0'],
    [{ adamw: { momentum: 0 } }, 'Unknown option "momentum" of adamw'],
    [{ learningRate: 1 }, 'Unknown option "learningRate"; did you mean "lr"?'],
    [{ weight_decay: 1 }, 'Unknown option "weight_decay"; did you mean "weightDecay"?'],
    [{ momentun: 1 }, 'Unknown option "momentun"; did you mean "momentum"?'],
    [{ LR: 1 }, 'did you mean "lr"?'],
    [{ threshold: { quantille: 1 } }, 'Unknown option "quantille" of threshold; did you mean "quantile"?'],
    [{ betas: [0.9, 0.95] }, 'Unknown option "betas"; did you mean "beta2"?'],
    [
      { zzz: 1 },
      'Unknown option "zzz"; there are lr, momentum, nesterov, weightDecay, coefficients, steps, lrScale, normalize, ' +
        'beta2, gradientThreshold, weightDecayKind, threshold, ' +
        'device',
    ],
  ])('option %j', async (options, message) => {
    await expectError(() => new Root([w], options), 'ERR_INVALID_ARGUMENT', message);
  });

  test.each<[unknown, string]>([
    [[], 'Expected the parameters to be a non-empty list of Parameters or of groups, got []'],
    [w, 'Expected the parameters to be a non-empty list of Parameters or of groups, got a Parameter'],
    [undefined, 'got undefined'],
    [[w, { params: [bias] }], 'Expected the parameters to be all Parameters or all groups'],
    [[[w]], 'Expected group 0 to be an object, got an array of length 1'],
    [[{ params: [] }], 'Expected params of group 0 to be a non-empty list of Parameters, got []'],
    [[{ params: w }], 'got a Parameter'],
    [[{ params: [w] }, { lr: 1 }], 'Expected params of group 1 to be a non-empty list of Parameters, got undefined'],
    [
      [{ params: [new Float32Array(3)] }],
      'Expected params of group 0 to be a list of Parameters, got Float32Array of length 3',
    ],
    [[w, w], 'Expected each parameter once, got "p0" twice'],
    [[{ params: [w] }, { params: [bias, w] }], 'Expected each parameter once, got "p0" twice'],
    [[w, new Parameter({ name: 'p0', shape: [3] })], 'Expected parameters of different names, got "p0" twice'],
    [
      [{ params: [w], algorithm: 'sgd' }],
      'Expected algorithm of group 0 to be one of "root", "muon", "adamw", got "sgd"',
    ],
    [
      [{ params: [w, bias], algorithm: 'root' }],
      'Expected parameters of at least 2 dimensions for root in group 0, got "p1"',
    ],
    [[{ params: [w], algorithm: 'muon', threshold: null }], 'Unknown option "threshold" of group 0 (muon)'],
    [[{ params: [w], algorithm: 'adamw', momentum: 0.9 }], 'Unknown option "momentum" of group 0 (adamw)'],
    [[{ params: [bias], momentum: 0.9 }], 'Unknown option "momentum" of group 0 (adamw)'],
    [[{ parameters: [w] }], 'Expected params of group 0'],
    [[{ params: [w], device: 'cpu' }], 'Unknown option "device" of group 0 (root)'],
  ])('parameters %#', async (params, message) => {
    await expectError(() => new Root(params as Parameter[]), 'ERR_INVALID_ARGUMENT', message);
  });

  test('what Muon and AdamW do not have', async () => {
    await expectError(
      () => new Muon([w], { threshold: null } as object),
      'ERR_INVALID_ARGUMENT',
      'Unknown option "threshold"',
    );
    await expectError(
      () => new AdamW([w], { momentum: 0 } as object),
      'ERR_INVALID_ARGUMENT',
      'Unknown option "momentum"',
    );
    const groups: GroupOptions[] = [{ params: [w], algorithm: 'root' }];
    await expectError(
      () => new AdamW(groups),
      'ERR_INVALID_ARGUMENT',
      'Expected algorithm of group 0 in AdamW to be "adamw", got "root"',
    );
  });
});

describe('live groups', () => {
  test.each<[string, (group: Record<string, unknown>) => unknown, string]>([
    [
      'a misspelt key',
      (group) => (group['learningRate'] = 1),
      'Unknown option "learningRate" of a group (root); did you mean "lr"?',
    ],
    ["another algorithm's key", (group) => (group['betas'] = [0, 0]), 'Unknown option "betas" of a group (root)'],
    ['params', (group) => (group['params'] = []), 'Expected params of a group to stay as it is'],
    ['algorithm', (group) => (group['algorithm'] = 'muon'), 'Expected algorithm of a group to stay as it is'],
    ['a definition', (group) => Object.defineProperty(group, 'lr', { value: -1 }), 'by assignment'],
  ])('refuse %s', async (_name, change, message) => {
    using optimizer = new Root(parameters([2, 3]));
    await expectError(
      () => change(optimizer.paramGroups[0] as unknown as Record<string, unknown>),
      'ERR_INVALID_ARGUMENT',
      message,
    );
    expect(plain(optimizer)).toEqual([{ ...root, params: 'p0' }]);
  });

  test('compound values are copied, and replaced whole', () => {
    const betas: [number, number] = [0.5, 0.6];
    using optimizer = new AdamW(parameters([3]), { betas });
    betas[0] = 7;
    const group = optimizer.paramGroups[0]!;
    expect(group).toMatchObject({ betas: [0.5, 0.6] });
    expect(() => ((group as unknown as { betas: number[] }).betas[0] = 7)).toThrow(TypeError);
  });

  test.each<[string, (group: ParamGroup) => void]>([
    ['lr', (group) => (group.lr = 0.5)],
    ['weightDecay', (group) => (group.weightDecay = 0.7)],
    ['momentum', (group) => Object.assign(group, { momentum: 0.3 })],
    ['nesterov', (group) => Object.assign(group, { nesterov: false })],
    ['threshold', (group) => Object.assign(group, { threshold: { quantile: 0.5 } })],
    ['threshold off', (group) => Object.assign(group, { threshold: null })],
    ['coefficients', (group) => Object.assign(group, { coefficients: 'quintic' })],
    ['steps', (group) => Object.assign(group, { steps: 2 })],
    ['lrScale', (group) => Object.assign(group, { lrScale: 'none' })],
  ])('%s takes effect at the next step', (_name, change) => {
    const run = (changeBefore: number) => {
      const w = new Parameter({ name: 'w', shape: [6, 9] });
      using optimizer = new Root([w]);
      for (const step of [1, 2]) {
        if (step === changeBefore) change(optimizer.paramGroups[0]!);
        // The first step's settings leave no trace, since its momentum buffer is the gradient and the data start anew.
        w.data.set(gaussian(54));
        w.grad.set(gaussian(54, step));
        optimizer.stepSync();
      }
      return bits(w.data);
    };
    expect(run(2)).toBe(run(1));
    expect(run(2)).not.toBe(run(3));
  });
});
