import { spawnSync } from 'node:child_process';
import path from 'node:path';

const root = path.join(__dirname, '..', '..');
const faults = path.join(root, 'build', 'Emulator', 'faults');
const minutes = 60_000;

interface Report {
  case: string;
  broken: boolean;
  /** The number of `seeds` under which something was wrong. */
  caught: number;
  seeds: number;
  how: string;
}

function run(program: string, args: string[], env: Record<string, string> = {}): string {
  const { status, stdout, stderr } = spawnSync(program, args, {
    cwd: root,
    env: { ...process.env, ...env },
    encoding: 'utf8',
  });
  if (status !== 0) throw new Error(stderr);
  return stdout;
}

function reports(names: string[], env?: Record<string, string>): Report[] {
  return run(faults, names, env)
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Report);
}

const platforms = process.platform === 'linux' ? describe : describe.skip;

platforms('the CUDA emulator, which is for Linux', () => {
  let all: Report[];
  beforeAll(() => {
    run(process.execPath, ['scripts/build-emulator.mjs']);
    all = reports([]);
  }, 10 * minutes);

  test('finds nothing wrong with correct kernels', () => {
    expect(all.filter(({ broken, caught }) => !broken && caught > 0)).toEqual([]);
    expect(all.filter(({ broken }) => !broken).length).toBeGreaterThan(40);
  });

  test('catches every broken kernel', () => {
    expect(all.filter(({ broken, caught }) => broken && caught === 0)).toEqual([]);
    expect(all.filter(({ broken }) => broken).length).toBeGreaterThan(35);
  });

  test.each([
    ['a barrier that all threads reach', /cudaErrorLaunchFailure, kernel wait, block \(0, 0, 0\): divergent barrier/],
    ['all lanes in a shuffle', /lanes 0x000fffff of 0xffffffff have come to __shfl_xor_sync at blocks\.cu/],
    [
      'stores inside a shared array',
      /cudaErrorIllegalAddress, .*past the 400 bytes of shared in shared memory, at byte 400/,
    ],
    ['stores inside a global array', /cudaErrorIllegalAddress, .*past the 400 bytes of global memory/],
    ['memory used before it is freed', /a store to freed memory/],
    ['all arrivals at an mbarrier', /64 threads wait at an mbarrier for 1 threads and 0 bytes/],
    ['an mbarrier that is initialised', /thread \(\d+, 0, 0\): an mbarrier that has not been initialised/],
    ['all threads at a named barrier', /only 40 threads have come to named barrier 1/],
    ['as many bytes as a box has', /threads wait at an mbarrier for 0 threads and -128 bytes/],
    ['no more bytes than a box has', /threads wait at an mbarrier for 0 threads and 128 bytes/],
    ['a wait for a box', /wrong result/],
    ['boxes that are read before they are refilled', /more threads arrive at an mbarrier than it counts/],
    ['aligned boxes', /a swizzled box at an address that is no multiple of 1024/],
    ['boxes inside of device memory', /cudaErrorIllegalAddress, .*the copy engine reads outside of device memory/],
    ['a wait for products', /wrong result/],
    ['one operand for a warpgroup', /the threads of a warpgroup give different operands/],
    ['a wait of a whole warpgroup', /only 100 threads of a warpgroup wait for products/],
    ['aligned copies', /thread \(\d+, 0, 0\): cp\.async with an address that is no multiple of 16/],
  ])('says what is wrong without %s', (name, message) => {
    expect(all.find((report) => report.case === name && report.broken)?.how).toMatch(message);
  });

  // Cards before Hopper keep one bit less, and add half as many products at once.
  test.each([{}, { EMULATOR_CAPABILITY: '8.0' }])(
    'cuts sums as tensor cores do, and rounds them if asked: %j',
    (env) => {
      const name = ['what tensor cores cut off'];
      expect(reports(name, env)[0]).toMatchObject({ caught: 0 });
      expect(reports(name, { ...env, EMULATOR_SUMS: 'rounded' })[0]).toMatchObject({ how: 'wrong result' });
    },
  );

  test('a fault goes to stderr with the seed that shows it again', () => {
    const { stderr } = spawnSync(faults, ['all lanes in a shuffle'], { encoding: 'utf8' });
    expect(stderr).toContain('emulator: device 0, kernel sum, block (0, 0, 0): warp 0: only lanes');
    expect(stderr).toContain('(EMULATOR_SEED=1)');
  });

  test.each([
    [{ EMULATOR_DRIVER: '0' }, 'cudaMalloc: cudaErrorInsufficientDriver'],
    [{ EMULATOR_DRIVER: '12080' }, 'cudaMalloc: cudaErrorInsufficientDriver'],
    [{ EMULATOR_DEVICES: '0' }, 'cudaMalloc: cudaErrorNoDevice'],
    [{ EMULATOR_MEMORY: '100' }, 'cudaMalloc: cudaErrorMemoryAllocation'],
    [
      { EMULATOR_FAIL: 'cudaFree:1=cudaErrorUnknown,cudaMemcpy:2=cudaErrorNotSupported' },
      'cudaMemcpy: cudaErrorNotSupported',
    ],
    [{ EMULATOR_FAIL: 'cudaLaunchKernel:1=cudaErrorNoKernelImageForDevice' }, 'sum: cudaErrorNoKernelImageForDevice'],
  ])('does as %j says', (env, how) => {
    expect(reports(['all lanes in a shuffle'], env)[0]).toMatchObject({ broken: false, caught: 8, how });
  });
});
