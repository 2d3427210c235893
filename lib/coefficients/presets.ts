import { adaptiveTriples } from './adaptive.js';
import { cans, cubic5, deepseekV4, muon, paper, polarExpress, quintic } from './published.js';
import type { Triple } from './triple.js';

/**
 * Named coefficients. Where a list is shorter than the number of iterations, its last triple repeats.
 *
 * At 5 iterations or more, every preset but `paper` and `cubic5` keeps singular values in [0, 1] within [0, 1.25];
 * `adaptive` does so at any number. Between iterations, and at fewer than 5, `polar-express` and `cans` reach 1.99 and
 * `quintic` reaches 1.27.
 *
 * - `muon`: one triple for every iteration (Keller Jordan, https://kellerjordan.github.io/posts/muon).
 * - `paper`: ROOT's published triples, one per shape (arXiv 2511.20626). Shapes that have none use `muon`. The triples
 *   are exactly as published, and that of 2048×2048 is not a bounded map: its peak 1.22459 lies above its unstable
 *   fixed point 1.22355. Singular values that enter an iteration near 0.559 leave five iterations at up to 3.31 and six
 *   at up to 679.
 * - `polar-express`: optimal for the spectral norm, iteration by iteration (arXiv 2505.16932), with its safety factor
 *   1.01.
 * - `cans`: Chebyshev-optimal (arXiv 2506.10935).
 * - `quintic`: You Jiacheng's sequence (https://x.com/YouJiacheng/status/1893704552689303901).
 * - `deepseek-v4`: eight iterations of `muon` and two that converge, the number of its iterations being 10 by default
 *   (DeepSeek-V4's technical report).
 * - `cubic5`: five cubic iterations (arXiv 2606.00371). They never square the Gram matrix, which saves a quarter of the
 *   operations of square matrices, and keep singular values within [0, 1.3].
 * - `adaptive`, the default: a triple for each iteration, fitted to the shape and the number of iterations.
 *
 * The triples of `adaptive` minimise the mean square of σ − 1 over a mixture of spectra. Gaussian matrices of the shape
 * (Marchenko-Pastur) have weight 3, spectra that decay as i^−p, p from 0.5 to 1, have weight 1. ROOT's paper mixes
 * random matrices with momentum in this proportion. A thousandth of the weight goes to longer tails. The map stays
 * within [0, 1.25], and within 1.3 where a bfloat16 rounding (2⁻⁸) moves every value. Between iterations, values peak
 * at 1. Common shapes come from a table. Others are fitted when they are first asked for, in a tenth of a second, and
 * kept in memory. Optimizers and `orthogonalize` fit them on a thread. With `steps: 4`, `adaptive` costs a fifth less
 * than `muon` with 5 and is no less precise, except for large matrices that are nearly square (docs/coefficients.md).
 */
export type Preset = 'muon' | 'paper' | 'polar-express' | 'cans' | 'quintic' | 'deepseek-v4' | 'cubic5' | 'adaptive';

/** Functions from a shape and a number of iterations to the triples of each preset. */
export const presets: Readonly<Record<Preset, (rows: number, columns: number, steps: number) => readonly Triple[]>> = {
  muon: () => muon,
  paper: (rows, columns) => {
    const [m, n] = [Math.min(rows, columns), Math.max(rows, columns)];
    return paper.find(({ shape }) => shape[0] === m && shape[1] === n)?.triples ?? muon;
  },
  'polar-express': () => polarExpress,
  cans: () => cans,
  quintic: () => quintic,
  'deepseek-v4': () => deepseekV4,
  cubic5: () => cubic5,
  adaptive: adaptiveTriples,
};

export const presetNames = Object.freeze(Object.keys(presets)) as readonly Preset[];
