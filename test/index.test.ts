import path from 'node:path';
import ts from 'typescript';
import * as library from '../lib/index.js';

/** Classes stand among the values. An abstract class that is exported as a type alone stands among the types. */
const values = [
  ...['AdamW', 'Muon', 'Parameter', 'Root', 'RootError'],
  ...['devices', 'makeSchedule', 'newtonSchulzCoefficients', 'orthogonalityError', 'train'],
  ...['orthogonalize', 'orthogonalizeSync', 'softThreshold', 'softThresholdSync'],
];

const types = [
  ...['AdamWGroup', 'AdamWOptions', 'AdamWSettings', 'AdamWState', 'Algorithm', 'Calibration', 'CalibrationEntry'],
  ...[
    'AddonReport',
    'Coefficients',
    'Device',
    'DeviceInfo',
    'DeviceMemory',
    'DeviceReport',
    'Evaluation',
    'GroupOptions',
    'HostSync',
  ],
  ...['LrScale', 'MatrixLayout', 'Model', 'MuonGroup', 'MuonOptions', 'MuonSettings', 'Optimizer'],
  ...['OrthogonalState', 'OrthogonalityError', 'OrthogonalizeOptions', 'ParamGroup', 'ParameterOptions'],
  ...['ParameterState', 'Precision', 'Preset', 'ProgressOptions', 'RootErrorCode', 'RootGroup', 'RootOptions'],
  ...['RootSettings', 'Schedule', 'ScheduleKind', 'ScheduleOptions', 'SoftThresholdOptions', 'SoftThresholdResult'],
  ...[
    'StepMetrics',
    'StepReport',
    'Threshold',
    'ThresholdOption',
    'WeightDecayKind',
    'GradientThreshold',
    'GradientThresholdOption',
    'TrainOptions',
    'TrainResult',
    'Triple',
    'Route',
    'Notes',
    'AdaptiveAccumulation',
    'AverageOptions',
    'BatchPlace',
    'Loaded',
    'NamedTensor',
    'NamedTensors',
    'LoadOptions',
    'SaveOptions',
    'WeightMap',
    'WeightSource',
    'WatchOptions',
    'Watched',
    'Batches',
    'CheckpointOptions',
    'ClipNorm',
    'EarlyStop',
  ],
];

test('the library exports these values and no others', () => {
  expect(Object.keys(library).sort()).toEqual([...values].sort());
});

test.each(['index.ts', 'index.mts'])('%s exports these names, types included, and no others', (entry) => {
  const root = path.join(__dirname, '..');
  const file = path.join(root, 'lib', entry);
  const { config } = ts.readConfigFile(path.join(root, 'tsconfig.json'), (name) => ts.sys.readFile(name)) as {
    config: object;
  };
  const { options } = ts.parseJsonConfigFileContent({ ...config, files: [file], include: [] }, ts.sys, root);
  const program = ts.createProgram([file], options);
  const checker = program.getTypeChecker();
  const names = checker.getExportsOfModule(checker.getSymbolAtLocation(program.getSourceFile(file)!)!);
  expect(names.map(({ name }) => name).sort()).toEqual([...values, ...types].sort());
});
