export type { AddonReport } from './addon-file.js';
export { type Device, type DeviceInfo, type DeviceReport, devices, type Precision } from './devices.js';
export { RootError, type RootErrorCode } from './errors.js';
export {
  orthogonalize,
  type OrthogonalizeOptions,
  orthogonalizeSync,
  softThreshold,
  type SoftThresholdOptions,
  type SoftThresholdResult,
  softThresholdSync,
} from './functions.js';
export { orthogonalityError, type OrthogonalityError } from './orthogonality.js';
export { type MatrixLayout, Parameter, type ParameterOptions } from './parameter.js';
export type { GradientThreshold, GradientThresholdOption, Threshold, ThresholdOption } from './threshold.js';
export type { Loaded, NamedTensor, NamedTensors } from './checkpoint/contents.js';
export type { Notes } from './checkpoint/metadata.js';
export type { WeightMap, WeightSource } from './checkpoint/weights.js';
export type { Calibration, CalibrationEntry } from './coefficients/calibration.js';
export { type Coefficients, newtonSchulzCoefficients } from './coefficients/option.js';
export type { Preset } from './coefficients/presets.js';
export type { Triple } from './coefficients/triple.js';
export { AdamW } from './optimizer/adamw.js';
export type { LoadOptions, Optimizer, SaveOptions } from './optimizer/base.js';
export type { AdamWGroup, GroupOptions, MuonGroup, ParamGroup, RootGroup } from './optimizer/groups.js';
export { Muon } from './optimizer/muon.js';
export type {
  AdamWOptions,
  AdamWSettings,
  Algorithm,
  HostSync,
  LrScale,
  MuonOptions,
  MuonSettings,
  RootOptions,
  RootSettings,
  Route,
  WeightDecayKind,
} from './optimizer/options.js';
export { Root } from './optimizer/root.js';
export type { AdamWState, DeviceMemory, OrthogonalState, ParameterState, StepReport } from './optimizer/types.js';
export { train } from './train/loop.js';
export type { ProgressOptions } from './train/progress.js';
export { makeSchedule, type Schedule, type ScheduleKind, type ScheduleOptions } from './train/schedules.js';
export type {
  AdaptiveAccumulation,
  AverageOptions,
  BatchPlace,
  Batches,
  CheckpointOptions,
  ClipNorm,
  EarlyStop,
  Evaluation,
  Model,
  StepMetrics,
  TrainOptions,
  TrainResult,
  Watched,
  WatchOptions,
} from './train/types.js';
