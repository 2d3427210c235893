import { fileURLToPath } from 'node:url';

/** @type {import('jest').Config} */
const common = {
  modulePathIgnorePatterns: ['<rootDir>/(build|dist|release|runs)/'],
  transform: {
    '\\.m?ts$': [
      '@swc/jest',
      { jsc: { target: 'es2022', parser: { syntax: 'typescript' } }, module: { type: 'commonjs' }, swcrc: false },
    ],
  },
  // Imports are written as Node sees them after compilation. JavaScript comes first, for packages that ship both.
  moduleNameMapper: { '^(\\.{1,2}/.*)\\.js$': '$1' },
  moduleFileExtensions: ['js', 'mjs', 'cjs', 'ts', 'mts', 'json', 'node'],
  // Jest's globals are slow to reach: a million uses take a second. These are handed to every module as parameters.
  sandboxInjectedGlobals: ['Array', 'Float32Array', 'Float64Array', 'Math', 'Number'],
  setupFilesAfterEnv: ['<rootDir>/test/equality.ts'],
};

const onEmulator = ['{devices,functions}', 'checkpoint/*', 'native/{accuracy,cuda*,emulator}', 'optimizer/*'];
const emulatorTests = onEmulator.map((name) => `<rootDir>/test/${name}.test.ts`);

/** @type {import('jest').Config} */
export default {
  // This is no limit on speed. A test that hangs has to fail, on the slowest machine and in the emulator too.
  testTimeout: 60_000,
  // Jest would leave one core alone, which is half of a machine of two.
  maxWorkers: '100%',
  projects: [
    // The addon as it was built on this machine, on every device that there is.
    {
      ...common,
      displayName: 'addon',
      testMatch: ['<rootDir>/test/**/*.test.ts', '!**/test/native/emulator.test.ts', '!**/test/release/**'],
    },
    // The CUDA backend's kernels, compiled for the host.
    {
      ...common,
      displayName: 'emulator',
      testMatch: process.platform === 'linux' ? emulatorTests : ['<rootDir>/test/no-emulator-here'],
      globalSetup: fileURLToPath(new URL('test/cuda-emulator/build.mjs', import.meta.url)),
      setupFiles: ['<rootDir>/test/cuda-emulator/select.ts'],
    },
    // The tarballs that `node scripts/release.mjs` has left in this folder.
    ...(process.env['ROOT_OPTIMIZER_RELEASE']
      ? [{ ...common, displayName: 'release', testMatch: ['<rootDir>/test/release/*.test.ts'] }]
      : []),
  ],
};
