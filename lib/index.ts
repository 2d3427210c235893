import { addon } from './binding.js';

export { AdamW } from './optimizer/adamw.js';
export type { Calibration, CalibrationEntry } from './coefficients/calibration.js';
export { type Coefficients, newtonSchulzCoefficients, type Preset, type Triple } from './coefficients/option.js';
export { type Device, type DeviceInfo, type DeviceReport, devices } from './devices.js';
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
export type { AdamWGroup, GroupOptions, MuonGroup, ParamGroup, RootGroup } from './optimizer/groups.js';
export { Muon } from './optimizer/muon.js';
export type { AdamWState, DeviceMemory, Optimizer, OrthogonalState, ParameterState, StepReport } from './optimizer/base.js';
export type {
  AdamWOptions,
  AdamWSettings,
  Algorithm,
  HostSync,
  LrScale,
  MuonOptions,
  MuonSettings,
  Precision,
  RootOptions,
  RootSettings,
  Threshold,
  ThresholdOption,
} from './optimizer/options.js';
export { orthogonalityError, type OrthogonalityError } from './orthogonality.js';
export { type MatrixLayout, Parameter, type ParameterOptions } from './parameter.js';
export type { ProgressOptions } from './train/progress.js';
export { Root } from './optimizer/root.js';
export { makeSchedule, type Schedule, type ScheduleKind, type ScheduleOptions } from './train/schedules.js';
export { type Evaluation, type Model, type StepMetrics, train, type TrainOptions, type TrainResult } from './train/loop.js';

// At once, so that an import where the addon is not built says so rather than whatever comes first.
addon();
