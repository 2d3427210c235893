import { devices, orthogonalizeSync, Parameter, Root } from '../../../lib/index.js';
import { median, plainFlops } from '../../common/numbers.js';
import { paper } from '../../common/paper.js';
import { gaussian } from '../../common/random.js';
import { inTurns } from './turns.js';

/** A matrix of size × aspect·size on one thread. */
export interface SizePoint {
  size: number;
  shape: '1:1' | '1:4';
  /** Picoseconds for each multiply-add of the five plain iterations. */
  picosecondsEach: number;
  /**
   * The nearest multiple of 16, and this point's time divided by that of its matrix. Absent for the multiple itself.
   */
  neighbour?: { size: number; ratio: number };
}

/** A step on `matrices` matrices of 256 × 256. */
export interface CountPoint {
  matrices: number;
  threads: string;
  milliseconds: number;
}

const sizes = [
  ...[48, 64, 65, 79, 80, 96, 127, 128, 129, 144, 191, 192, 193, 208, 255, 256, 257, 272, 383, 384, 385, 400],
  ...[511, 512, 513, 528, 767, 768, 769, 784, 1023, 1024, 1025, 1040],
];

/** Measures everything in turns, in five rounds. */
export function measureGrowth(): { bySize: SizePoint[]; byCount: CountPoint[] } {
  const matrices = sizes.flatMap((size) => [oneMatrix(size, 1), oneMatrix(size, 4)]);
  const counts = [1, devices().cpu.physicalCores].flatMap((threads) =>
    [1, 2, 4, 8, 16, 32, 64].map((count) => manyMatrices(count, threads)),
  );
  const rounds = inTurns(
    5,
    [...matrices, ...counts].map(({ run }) => ({ run })),
    { calls: 3, time: 60 },
  );
  const typical = (figure: (round: number[]) => number) =>
    median(rounds.map((round) => figure(round.map(({ run }) => run))));
  const bySize = matrices.map(({ size, aspect, picoseconds }, i): SizePoint => {
    const even = 16 * Math.round(size / 16);
    const beside = matrices.findIndex((other) => other.aspect === aspect && other.size === even);
    const each = (round: number[], index: number) => round[index]! * matrices[index]!.picoseconds;
    return {
      size,
      shape: aspect === 1 ? '1:1' : '1:4',
      picosecondsEach: typical((round) => round[i]! * picoseconds),
      ...(beside === i
        ? {}
        : { neighbour: { size: even, ratio: typical((round) => each(round, i) / each(round, beside)) } }),
    };
  });
  const byCount = counts.map(({ count, threads }, i): CountPoint => {
    const milliseconds = typical((round) => round[matrices.length + i]!);
    return { matrices: count, threads: `${threads} thread${threads === 1 ? '' : 's'}`, milliseconds };
  });
  return { bySize, byCount };
}

function oneMatrix(size: number, aspect: 1 | 4) {
  const shape = [size, aspect * size];
  const x = gaussian(size * size * aspect);
  const out = new Float32Array(x.length);
  // The factor from milliseconds to picoseconds per multiply-add.
  const picoseconds = 1e9 / (plainFlops(size, aspect * size) / 2);
  return { size, aspect, picoseconds, run: () => orthogonalizeSync(x, shape, { threads: 1, device: 'cpu', out }) };
}

function manyMatrices(count: number, threads: number) {
  const parameters = Array.from({ length: count }, (_, i) => {
    return new Parameter({ name: `w${i}`, shape: [256, 256], grad: gaussian(256 * 256) });
  });
  const optimizer = new Root(parameters, { ...paper, threads, device: 'cpu' });
  return { count, threads, run: () => optimizer.stepSync() };
}
