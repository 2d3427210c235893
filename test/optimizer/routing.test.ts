import { AdamW, Muon, type Optimizer, Parameter, Root, type RootErrorCode, type RootOptions } from '../../lib/index.js';
import { expectError, fillGradients, parameters, snapshot } from '../support.js';

const make = (names: readonly string[], shape: readonly number[] = [4, 6]) =>
  names.map((name) => new Parameter({ name, shape }));

const routed = (optimizer: Optimizer) =>
  Object.fromEntries(optimizer.paramGroups.map(({ algorithm, params }) => [algorithm, params.map(({ name }) => name)]));

// These come from PyTorch's GPT-2 and Llama, timm's ViT, Keras, Flax and tfjs.
const forAdamW = [
  ...['transformer.wte.weight', 'wpe', 'lm_head.weight', 'model.embed_tokens.weight', 'tok_embeddings.weight'],
  ...['patch_embed.proj.weight', 'pos_embed', 'head.weight', 'classifier.weight', 'embedding_1/embeddings'],
  ...['params.Embed_0.embedding', 'embedding_Embedding1/embeddings', 'layers.0.bias', 'LayerNorm_0.scale', 'ln_f.g'],
  ...['model.norm.weight', 'input_layernorm.weight', 'layer_normalization_2/gamma', 'decoder.unembed', 'lmHead'],
];
const forRoot = [
  ...['transformer.h.0.attn.c_attn.weight', 'model.layers.0.self_attn.q_proj.weight', 'blocks.3.mlp.fc1.weight'],
  ...['multi_head_attention/query/kernel', 'dense_Dense1/kernel', 'conv2d_1/kernel', 'params.Dense_0.kernel', 'w'],
  ...['headless.weight', 'lstm/recurrent_kernel'],
];

test('a flat list is divided by the names that frameworks give', () => {
  expect(routed(new Root(make([...forAdamW, ...forRoot])))).toEqual({ root: forRoot, adamw: forAdamW });
  expect(routed(new AdamW(make(forRoot)))).toEqual({ adamw: forRoot });
});

test('the first time that a name decides, a warning says so', () => {
  const warn = jest.spyOn(process, 'emitWarning').mockReturnValue();
  jest.isolateModules(() => {
    const { Root: Fresh, Parameter: Own } =
      jest.requireActual<typeof import('../../lib/index.js')>('../../lib/index.js');
    const list = (names: string[]) => names.map((name) => new Own({ name, shape: [3, 3] }));
    new Fresh(list(['a', 'b']));
    new Fresh([{ params: list(['head']) }]);
    new Fresh(list(['head', 'a']), { route: () => 'root' });
    expect(warn).not.toHaveBeenCalled();
    new Fresh(list(['embedding', 'a', 'head']));
    new Fresh(list(['embedding', 'a', 'head']));
  });
  expect(warn.mock.calls).toEqual([
    [
      expect.stringContaining('AdamW updates "embedding", "head"'),
      expect.objectContaining({ code: 'ROOT_OPTIMIZER_ROUTE' }),
    ],
  ]);
  warn.mockRestore();
});

test('a route decides by name and shape', () => {
  const params = [...make(['embedding', 'a', 'b']), ...make(['v'], [4])];
  const seen: [string, readonly number[]][] = [];
  const route: RootOptions['route'] = (name, shape) => {
    seen.push([name, shape]);
    return name === 'a' ? 'muon' : name === 'v' ? 'adamw' : 'root';
  };
  const optimizer = new Root(params, { route, lr: 0.5 });
  expect(routed(optimizer)).toEqual({ root: ['embedding', 'b'], muon: ['a'], adamw: ['v'] });
  expect(optimizer.paramGroups.map(({ lr }) => lr)).toEqual([0.5, 0.5, 0.003]);
  expect(seen).toEqual(params.map(({ name, shape }) => [name, shape]));
  expect(routed(new Muon(params, { route: (name) => (name === 'v' ? 'adamw' : 'muon') }))).toEqual({
    muon: ['embedding', 'a', 'b'],
    adamw: ['v'],
  });
});

test.each<[string, unknown, string]>([
  ['a name that is no algorithm', () => 'sgd', 'what route returns for "a"'],
  ['a vector for ROOT', () => 'root', 'fewer than 2 dimensions, got "root" for "v"'],
  ['a string', 'root', 'Expected route to be a function'],
])('%s is refused', async (_, route, message) => {
  const params = [...make(['a']), ...make(['v'], [4])];
  await expectError(() => new Root(params, { route: route as never }), 'ERR_INVALID_ARGUMENT', message);
});

test('a route is for flat lists, and not for AdamW', async () => {
  const route = () => 'root' as const;
  await expectError(() => new Root([{ params: make(['a']) }], { route }), 'ERR_INVALID_ARGUMENT', 'a flat list');
  await expectError(() => new AdamW(make(['a']), { route } as never), 'ERR_INVALID_ARGUMENT', 'route');
});

describe('restore', () => {
  const shapes = [[6, 5], [5], [3, 4, 2]];
  const options = { normalize: 'rows' } as const;

  test('takes what stateOf returned, exactly', async () => {
    const model = parameters('p', shapes);
    const other = parameters('p', shapes);
    const first = new Root(model, options);
    const second = new Root(other, options);
    for (let step = 1; step <= 3; step++) {
      fillGradients(step, model);
      await first.step();
    }
    model.forEach(({ data }, i) => other[i]!.data.set(data));
    second.restore(new Map(other.map((one, i) => [one, first.stateOf(model[i]!)])));
    for (let step = 4; step <= 6; step++) {
      fillGradients(step, model, other);
      await first.step();
      await second.step();
      expect(snapshot(second, other)).toEqual(snapshot(first, model));
    }
  });

  test.each<[string, object, string, RootErrorCode?]>([
    ['a missing one', { p0: undefined }, 'the state of parameter "p0"'],
    ['another length', { p0: { momentumBuffer: new Float32Array(2) } }, 'momentumBuffer', 'ERR_SHAPE_MISMATCH'],
    ['NaN', { p2: { momentumBuffer: new Float32Array(24).fill(NaN) } }, 'finite'],
    ['a negative moment', { p1: { expAvgSq: new Float32Array(5).fill(-1) } }, 'at least 0'],
    ['another step', { p1: { step: 7 } }, 'all of step 1'],
    ['thresholds of another number', { p0: { thresholds: [] } }, 'thresholds'],
  ])('refuses %s, and nothing changes', async (_, change, message, code = 'ERR_INVALID_ARGUMENT') => {
    const model = parameters('p', shapes);
    const optimizer = new Root(model, options);
    fillGradients(1, model);
    await optimizer.step();
    const before = snapshot(optimizer, model);
    const states = model.map((one): [Parameter, never] => {
      const replaced = (change as Record<string, object | undefined>)[one.name];
      const state =
        one.name in change && replaced === undefined ? undefined : { ...optimizer.stateOf(one), ...replaced };
      return [one, state as never];
    });
    await expectError(() => optimizer.restore(new Map(states)), code, message);
    expect(snapshot(optimizer, model)).toEqual(before);
  });
});
