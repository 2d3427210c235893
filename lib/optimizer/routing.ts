import { enumerate, RootError } from '../errors.js';
import type { Parameter } from '../parameter.js';
import { oneOf } from '../validate.js';
import type { Algorithm, Route } from './options.js';

/** Parameters of a list that one algorithm updates. */
export interface Routed {
  readonly algorithm: Algorithm;
  readonly params: readonly Parameter[];
}

/**
 * The names that frameworks give to embeddings, heads, biases and gains of norms, as one part of a path. Steps of ROOT
 * and Muon are made for the matrices between embedding and head. PyTorch and JAX write `lm_head.weight` and
 * `wte`, Keras `embedding_1/embeddings` and `layer_normalization/gamma`.
 */
const namesForAdamW = [
  /^(.*_)?(un)?(embed|emb|embedding|embedder|embeddings)(_.*)?$/,
  /^(wte|wpe|positions|pos|position)$/,
  /^(lm_?|output_|classification_|prediction_|classifier_)?head$/,
  /^(classifier|logits|unembed)$/,
  /^(bias|biases|gain|gamma|beta)$/,
  /^(.*_)?(layer|rms|batch|group)?_?(norm|normalization)$/,
  /^ln(_f)?$/,
];

const algorithmRule = oneOf('root', 'muon', 'adamw');
let hasTold = false;

/**
 * Divides a flat list among algorithms: the optimizer's own first, AdamW last. Without a route, parameters with fewer
 * than two dimensions and those with a name for AdamW go to AdamW. The first time that a name decides, a warning of the
 * process says so.
 */
export function routeList(own: Algorithm, params: readonly Parameter[], route: Route | undefined): Routed[] {
  const choose = route === undefined ? byRankAndName(own) : (one: Parameter) => checked(route, one);
  const chosen = params.map(choose);
  if (route === undefined && own !== 'adamw') tell(params.filter((one, i) => isMatrix(one) && chosen[i] === 'adamw'));
  const order: Algorithm[] = own === 'adamw' ? ['adamw'] : [own, own === 'root' ? 'muon' : 'root', 'adamw'];
  return order
    .map((algorithm) => ({ algorithm, params: params.filter((_, i) => chosen[i] === algorithm) }))
    .filter((group) => group.params.length > 0);
}

/** Whether a part of the name is one for AdamW. Parts are separated by dots, slashes or colons. */
export function isNamedForAdamW(name: string): boolean {
  const parts = name.split(/[./:]+/).map((part) =>
    part
      .replace(/([a-z])([A-Z])/g, '$1_$2')
      .toLowerCase()
      .replace(/[_-]?\d+$/, ''),
  );
  return parts.some((part) => namesForAdamW.some((pattern) => pattern.test(part)));
}

function isMatrix(parameter: Parameter): boolean {
  return parameter.shape.length >= 2;
}

function byRankAndName(own: Algorithm): (parameter: Parameter) => Algorithm {
  return (parameter) => (isMatrix(parameter) && !isNamedForAdamW(parameter.name) ? own : 'adamw');
}

function checked(route: Route, parameter: Parameter): Algorithm {
  const { name, shape } = parameter;
  const algorithm = algorithmRule(route(name, shape), `what route returns for ${JSON.stringify(name)}`);
  if (algorithm !== 'adamw' && !isMatrix(parameter)) {
    throw new RootError(
      'ERR_INVALID_ARGUMENT',
      `Expected route to return "adamw" for a parameter of fewer than 2 dimensions, got "${algorithm}" for ` +
        JSON.stringify(name),
    );
  }
  return algorithm;
}

function tell(byName: readonly Parameter[]): void {
  if (hasTold || byName.length === 0) return;
  hasTold = true;
  process.emitWarning(
    `AdamW updates ${enumerate(byName.map((one) => one.name))}, as the names suggest; ` +
      'give groups or a route to decide otherwise',
    { type: 'RootOptimizerWarning', code: 'ROOT_OPTIMIZER_ROUTE' },
  );
}
