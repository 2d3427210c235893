// A dry run of the benchmark of CUDA, beside a peer that only says that it is one. The times are those of the emulator.
import { spawnSync } from 'node:child_process';
import path from 'node:path';
import { devicesUnderTest, isEmulated } from '../support.js';

const device = devicesUnderTest().find((one) => one !== 'cpu') ?? 'cuda';
const onEmulator = isEmulated(device) ? describe : describe.skip;

onEmulator('npm run bench:cuda', () => {
  const root = path.join(__dirname, '..', '..');
  const run = (...args: string[]) =>
    spawnSync(process.execPath, ['--import', 'tsx', 'scripts/bench/cuda.ts', ...args], {
      cwd: root,
      encoding: 'utf8',
      env: { ...process.env },
    });
  const small = ['--cases', '6x10x2,12x8x1', '--model', '0', '--rounds', '2', '--device', 'cuda:0'];

  test('prints a row for each case, with figures of PyTorch', () => {
    const fake = path.join(__dirname, 'fake-pytorch.mjs');
    const { status, stdout, stderr } = run(...small, '--compensated', 'on,off', '--python', fake);
    expect([status, stderr]).toEqual([0, '']);
    // Two milliseconds for 2 GiB, and for 2 · 8192³ operations.
    expect(stdout).toContain('a fake of PyTorch: copies at 1.07 TB/s, a bfloat16 product at 550 TFLOP/s');
    const rows = stdout.split('\n').filter((line) => /^\| \d+ of /.test(line));
    expect(rows.map((row) => row.split(' | ').slice(0, 3).join())).toEqual([
      '| 2 of 6×10,float16,on',
      '| 1 of 12×8,float16,on',
      '| 2 of 6×10,float16,off',
      '| 1 of 12×8,float16,off',
    ]);
    const head = stdout.split('\n').find((line) => line.startsWith('| matrices'))!;
    for (const row of rows) {
      const cells = row.split('|').slice(4, -1);
      expect(row.split('|')).toHaveLength(head.split('|').length);
      expect(cells.filter((cell) => !/^ \d+(\.\d+)? $/.test(cell))).toEqual([]);
      expect(cells.filter((cell) => cell === ' 2.000 ')).toHaveLength(3);
    }
  });

  test('leaves PyTorch out where there is none, and says so', () => {
    const { status, stdout } = run(...small, '--python', path.join(root, 'no-python'));
    expect(status).toBe(0);
    expect(stdout).toMatch(/PyTorch: left out \(.*ENOENT\)/);
    expect(stdout.split('\n').filter((line) => /^\| \d+ of /.test(line))).toHaveLength(2);
  });
});
