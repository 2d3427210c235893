import { addon } from './binding.js';

export { AdamW } from './adamw.js';
export type { Calibration, CalibrationEntry } from './calibration.js';
export { type Coefficients, newtonSchulzCoefficients, type Preset, type Triple } from './coefficients.js';
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
export type { AdamWGroup, GroupOptions, MuonGroup, ParamGroup, RootGroup } from './groups.js';
export { Muon } from './muon.js';
export type { AdamWState, DeviceMemory, Optimizer, OrthogonalState, ParameterState, StepReport } from './optimizer.js';
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
} from './options.js';
export { orthogonalityError, type OrthogonalityError } from './orthogonality.js';
export { type MatrixLayout, Parameter, type ParameterOptions } from './parameter.js';
export type { ProgressOptions } from './progress.js';
export { Root } from './root.js';
export { makeSchedule, type Schedule, type ScheduleKind, type ScheduleOptions } from './schedules.js';
export { type Evaluation, type Model, type StepMetrics, train, type TrainOptions, type TrainResult } from './train.js';

// At once, so that an import where the addon is not built says so rather than whatever comes first.
addon();
