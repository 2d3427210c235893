import { Writable } from 'node:stream';
import { enumerate, expected, RootError } from '../errors.js';
import { onHost, Optimizer } from '../optimizer/base.js';
import { Parameter } from '../parameter.js';
import { checkKeys, checkObject, integer, interval, oneOf } from '../validate.js';
import type { Saving } from './checkpoints.js';
import { GradientSum } from './gradients.js';
import type { ProgressOptions } from './progress.js';
import { makeSchedule, type Schedule } from './schedules.js';
import { watchedNames } from './watch.js';
import type {
  AdaptiveAccumulation,
  AverageOptions,
  Batches,
  CheckpointOptions,
  EarlyStop,
  Evaluation,
  Model,
  StepMetrics,
  TrainOptions,
  WatchOptions,
} from './types.js';

/** The options of `train`, checked and complete. */
export interface Training<Batch> {
  readonly model: Model<Batch>;
  readonly optimizer: Optimizer;
  /** The optimizer's parameters. */
  readonly stepped: readonly Parameter[];
  readonly steps: number;
  readonly schedule: Schedule | undefined;
  /** Batches of the first step. */
  readonly accumulation: number;
  readonly adaptive: { readonly theta: number; readonly max: number } | undefined;
  readonly sum: GradientSum | undefined;
  readonly clipNorm: ClipRule | undefined;
  /** Of the averages of the weights. */
  readonly decay: number | undefined;
  readonly watch: { readonly every: number; readonly parameters: readonly Parameter[] } | undefined;
  readonly evaluate: Evaluation | undefined;
  readonly earlyStop: EarlyStop | undefined;
  readonly checkpoint: Saving | undefined;
  /** The file to go on from, and whether it may be missing. */
  readonly resume: { readonly file: string; readonly isOptional: boolean } | undefined;
  readonly progress: ProgressOptions | undefined;
  readonly signal: TrainOptions<Batch>['signal'];
}

/** The parameters whose gradients are scaled together, and their largest norm. */
export interface ClipRule {
  readonly params: readonly Parameter[];
  readonly max: number;
}

const known = [
  ...[
    'model',
    'optimizer',
    'batches',
    'steps',
    'schedule',
    'accumulation',
    'clipNorm',
    'evaluate',
    'progress',
    'metrics',
  ],
  ...['labels', 'signal', 'onStep', 'earlyStop', 'checkpoint', 'resume', 'ema', 'watch'],
];
const metricNames: readonly (keyof StepMetrics)[] = [
  ...([
    'step',
    'loss',
    'lr',
    'applied',
    'gradNorm',
    'accumulation',
    'noiseScale',
    'watch',
    'evaluation',
    'milliseconds',
    'optimizerMilliseconds',
  ] as const),
];
const count = integer(1, Number.MAX_SAFE_INTEGER);
const factorRule = interval('[0, 1]');
const clipNormRule = interval('(0, ∞)');

/** @throws RootError ERR_INVALID_ARGUMENT */
export function prepareTraining<Batch>(options: TrainOptions<Batch>): Training<Batch> {
  checkKeys(checkObject(options, 'the argument of train'), known, 'of train');
  const { model, optimizer, batches, steps, evaluate, signal } = options;
  const { metrics, labels, onStep } = options as Record<keyof typeof options, unknown>;
  if (!(optimizer instanceof Optimizer)) throw expected('optimizer', 'a Root, Muon or AdamW', optimizer);
  onHost(optimizer);
  const stepped = checkModel(model, optimizer);
  if (typeof batches !== 'function' && !isIterable(batches)) {
    throw expected('batches', 'an iterable, an async iterable or a function', batches);
  }
  if (metrics !== undefined && !(typeof metrics === 'string' && metrics !== '') && !(metrics instanceof Writable)) {
    throw expected('metrics', 'the name of a file or a writable stream', metrics);
  }
  if (labels !== undefined) checkLabels(labels);
  if (signal !== undefined && typeof (signal as { aborted?: unknown } | null)?.aborted !== 'boolean') {
    throw expected('signal', 'an AbortSignal', signal);
  }
  if (onStep !== undefined && typeof onStep !== 'function') throw expected('onStep', 'a function', onStep);
  const accumulation = resolveAccumulation(options.accumulation ?? 1);
  return {
    model,
    optimizer,
    stepped,
    steps: count(steps, 'steps'),
    schedule: options.schedule === undefined ? undefined : resolveSchedule(options.schedule, steps),
    ...accumulation,
    sum: accumulation.accumulation === 1 ? undefined : new GradientSum(stepped),
    clipNorm: resolveClipNorm(options.clipNorm, optimizer, stepped),
    decay: resolveAverages(options.ema),
    watch: resolveWatch(options.watch, optimizer, stepped),
    evaluate: evaluate === undefined ? undefined : checkEvaluation(evaluate),
    earlyStop: resolveEarlyStop(options.earlyStop, evaluate !== undefined),
    ...resolveCheckpoints(options.checkpoint, options.resume ?? false),
    progress: resolveProgress(options.progress ?? false),
    signal,
  };
}

/** Checks what a user's function for batches returns. */
export function checkBatches<T>(batches: Batches<T>): Batches<T> {
  if (!isIterable(batches)) throw expected('what batches returns', 'an iterable or async iterable', batches);
  return batches;
}

/** Checks the value of a schedule, which may be a user's own function. */
export function checkFactor(factor: unknown): number {
  return factorRule(factor, 'what schedule returns');
}

/** Checks that a value is a number. NaN and infinities pass, since a loss may become so. */
export function checkNumber(value: unknown, name: string): number {
  if (typeof value !== 'number') throw expected(name, 'a number', value);
  return value;
}

/** @returns the optimizer's parameters: those that are trained, all of which the model has to fill */
function checkModel(model: unknown, optimizer: Optimizer): readonly Parameter[] {
  const { parameters, lossAndGradients } = checkObject(model, 'model');
  if (!Array.isArray(parameters) || !parameters.every((one) => Parameter.isOne(one))) {
    throw expected('model.parameters', 'a list of Parameters', parameters);
  }
  if (typeof lossAndGradients !== 'function') throw expected('model.lossAndGradients', 'a function', lossAndGradients);
  const stepped = optimizer.paramGroups.flatMap((group) => group.params);
  const strangers = stepped.filter((one) => !parameters.includes(one)).map(({ name }) => name);
  if (strangers.length > 0) {
    throw new RootError(
      'ERR_INVALID_ARGUMENT',
      `Expected the optimizer's parameters to be the model's, got ${enumerate(strangers)} besides`,
    );
  }
  return stepped;
}

function checkLabels(labels: unknown): void {
  for (const [name, value] of Object.entries(checkObject(labels, 'labels'))) {
    if (metricNames.some((metric) => metric === name)) {
      throw expected('the names of labels', `other than ${metricNames.join(', ')}`, name);
    }
    if (!['string', 'number', 'boolean'].includes(typeof value)) {
      throw expected(`labels.${name}`, 'a string, a number, true or false', value);
    }
  }
}

function checkEvaluation(evaluate: Evaluation): Evaluation {
  checkKeys(checkObject(evaluate, 'evaluate'), ['every', 'run'], 'of evaluate');
  count(evaluate.every, 'evaluate.every');
  if (typeof (evaluate.run as unknown) !== 'function') throw expected('evaluate.run', 'a function', evaluate.run);
  return evaluate;
}

function resolveAccumulation(
  value: number | AdaptiveAccumulation,
): Pick<Training<unknown>, 'accumulation' | 'adaptive'> {
  if (typeof value !== 'object') return { accumulation: count(value, 'accumulation'), adaptive: undefined };
  checkKeys(checkObject(value, 'accumulation'), ['test', 'theta', 'start', 'max'], 'of accumulation');
  oneOf('norm')(value.test, 'accumulation.test');
  const theta = interval('(0, ∞)')(value.theta, 'accumulation.theta');
  const max = integer(2, Number.MAX_SAFE_INTEGER)(value.max, 'accumulation.max');
  return { accumulation: integer(2, max)(value.start ?? 2, 'accumulation.start'), adaptive: { theta, max } };
}

function resolveClipNorm(
  clipNorm: TrainOptions<unknown>['clipNorm'],
  optimizer: Optimizer,
  stepped: readonly Parameter[],
): ClipRule | undefined {
  if (clipNorm == null) return undefined;
  if (typeof clipNorm !== 'object') return { params: stepped, max: clipNormRule(clipNorm, 'clipNorm') };
  checkKeys(checkObject(clipNorm, 'clipNorm'), ['max', 'only'], 'of clipNorm');
  const max = clipNormRule(clipNorm.max, 'clipNorm.max');
  if (clipNorm.only === undefined) return { params: stepped, max };
  oneOf('adamw')(clipNorm.only, 'clipNorm.only');
  const groups = optimizer.paramGroups.filter((group) => group.algorithm === 'adamw');
  return { params: groups.flatMap((group) => group.params), max };
}

function resolveAverages(ema: AverageOptions | undefined): number | undefined {
  if (ema === undefined) return undefined;
  checkKeys(checkObject(ema, 'ema'), ['decay'], 'of ema');
  return interval('[0, 1)')(ema.decay, 'ema.decay');
}

function resolveWatch(
  watch: WatchOptions | undefined,
  optimizer: Optimizer,
  stepped: readonly Parameter[],
): Training<unknown>['watch'] {
  if (watch === undefined) return undefined;
  checkKeys(checkObject(watch, 'watch'), ['every', 'parameters'], 'of watch');
  const every = count(watch.every, 'watch.every');
  const parameters = watchedParameters(watch.parameters, optimizer, stepped);
  const names = parameters.flatMap(watchedNames);
  const twice = names.find((name, i) => names.indexOf(name) < i);
  if (twice !== undefined) throw expected('watch.parameters', 'matrices of different names', twice);
  return { every, parameters };
}

function watchedParameters(names: unknown, optimizer: Optimizer, stepped: readonly Parameter[]): readonly Parameter[] {
  if (names === undefined) {
    return optimizer.paramGroups.flatMap(({ algorithm, params }) => (algorithm === 'adamw' ? [] : params));
  }
  if (!Array.isArray(names)) throw expected('watch.parameters', 'a list of names', names);
  return names.map((name: unknown) => {
    const found = stepped.find((one) => one.name === name);
    if (found === undefined) throw expected('watch.parameters', "names of the optimizer's parameters", name);
    return found;
  });
}

function resolveEarlyStop(earlyStop: EarlyStop | undefined, hasEvaluation: boolean): EarlyStop | undefined {
  if (earlyStop === undefined) return undefined;
  checkKeys(checkObject(earlyStop, 'earlyStop'), ['patience'], 'of earlyStop');
  if (!hasEvaluation) throw expected('evaluate', 'given with earlyStop', undefined);
  return { patience: count(earlyStop.patience, 'earlyStop.patience') };
}

function resolveCheckpoints(
  checkpoint: CheckpointOptions | undefined,
  resume: unknown,
): Pick<Training<unknown>, 'checkpoint' | 'resume'> {
  if (checkpoint !== undefined) {
    checkKeys(checkObject(checkpoint, 'checkpoint'), ['path', 'every', 'keep'], 'of checkpoint');
    checkFile(checkpoint.path, 'checkpoint.path');
    count(checkpoint.every, 'checkpoint.every');
  }
  const saving =
    checkpoint === undefined ? undefined : { ...checkpoint, keep: count(checkpoint.keep ?? 1, 'checkpoint.keep') };
  if (resume === false) return { checkpoint: saving, resume: undefined };
  if (resume !== true) {
    return { checkpoint: saving, resume: { file: checkFile(resume, 'resume', 'true, false or '), isOptional: false } };
  }
  if (saving === undefined) throw expected('checkpoint', 'given with resume: true', undefined);
  return { checkpoint: saving, resume: { file: saving.path, isOptional: true } };
}

function checkFile(value: unknown, name: string, also = ''): string {
  if (typeof value !== 'string' || value === '') throw expected(name, `${also}the name of a file`, value);
  return value;
}

function resolveSchedule(schedule: unknown, steps: number): Schedule {
  if (typeof schedule === 'function') return schedule as Schedule;
  if (typeof schedule === 'string') return makeSchedule(schedule as 'constant', steps);
  const { kind, ...options } = checkObject(schedule, 'schedule');
  return makeSchedule(kind as 'constant', steps, options);
}

function resolveProgress(progress: unknown): ProgressOptions | undefined {
  if (typeof progress === 'boolean') return progress ? {} : undefined;
  if (typeof progress !== 'object') throw expected('progress', 'true, false or an object', progress);
  const options = checkObject(progress, 'progress') as ProgressOptions;
  checkKeys(options, ['label', 'stream', 'interval'], 'of progress');
  const { label, stream, interval: between } = options as Record<keyof ProgressOptions, unknown>;
  if (label !== undefined && typeof label !== 'string') throw expected('progress.label', 'a string', label);
  if (stream !== undefined && !(stream instanceof Writable)) {
    throw expected('progress.stream', 'a writable stream', stream);
  }
  if (between !== undefined) interval('[0, ∞)')(between, 'progress.interval');
  return options;
}

export function isAsync<T>(value: Batches<T>): value is AsyncIterable<T> {
  return typeof (value as Partial<AsyncIterable<T>>)[Symbol.asyncIterator] === 'function';
}

function isIterable(value: unknown): boolean {
  if (typeof value !== 'object' || value === null) return false;
  const { [Symbol.iterator]: synchronous, [Symbol.asyncIterator]: asynchronous } = value as Record<symbol, unknown>;
  return typeof synchronous === 'function' || typeof asynchronous === 'function';
}
