import { adaptiveTriples } from './adaptive.js';
import { cans, muon, paper, polarExpress, quintic } from './published.js';
import type { Triple } from './triple.js';

/**
 * Named coefficients. Each but `paper` keeps singular values in [0, 1] within [0, 1.25] at 5 iterations or more,
 * `adaptive` at any number; in between, and at fewer iterations, `polar-express` and `cans` reach 1.99 and `quintic`
 * 1.27. Where a list is shorter than the number of iterations its last triple repeats.
 *
 * - `muon`: one triple for every iteration (Keller Jordan, https://kellerjordan.github.io/posts/muon).
 * - `paper`: ROOT's published triples, one a shape (arXiv 2511.20626), `muon` for shapes it gives none for. Exactly as
 *   published, and that of 2048×2048 is not a bounded map: its peak 1.22459 lies above its unstable fixed point
 *   1.22355, so that singular values near 0.559 of an iteration leave five iterations at up to 3.31, six at up to 679.
 * - `polar-express`: optimal for the spectral norm, iteration by iteration (arXiv 2505.16932), with its safety factor
 *   1.01.
 * - `cans`: Chebyshev-optimal (arXiv 2506.10935).
 * - `quintic`: You Jiacheng's sequence (https://x.com/YouJiacheng/status/1893704552689303901).
 * - `adaptive`, the default: a triple for each iteration, fitted to the shape and the number of iterations. They
 *   minimise the mean square of σ − 1 over the spectra of Gaussian matrices of that shape (Marchenko-Pastur) at weight
 *   3 and spectra that decay as i^−p, p from 0.5 to 1, at weight 1, the proportion in which ROOT's paper mixes random
 *   matrices with momentum; a thousandth goes to longer tails. The map stays within [0, 1.25], and within 1.3 where
 *   every value is moved by a bfloat16 rounding (2⁻⁸); between iterations values peak at 1. Common shapes come from a
 *   table, others are fitted when they are first asked for, in tens of milliseconds, and kept in memory. With `steps:
 *   4` it costs a fifth less and is no less precise than `muon` with 5, but for large matrices that are nearly square
 *   (docs/coefficients.md).
 */
export type Preset = 'muon' | 'paper' | 'polar-express' | 'cans' | 'quintic' | 'adaptive';

/** What each preset gives a matrix of that shape for that number of iterations. */
export const presets: Readonly<Record<Preset, (rows: number, columns: number, steps: number) => readonly Triple[]>> = {
  muon: () => muon,
  paper: (rows, columns) => {
    const [m, n] = [Math.min(rows, columns), Math.max(rows, columns)];
    return paper.find(({ shape }) => shape[0] === m && shape[1] === n)?.triples ?? muon;
  },
  'polar-express': () => polarExpress,
  cans: () => cans,
  quintic: () => quintic,
  adaptive: adaptiveTriples,
};

export const presetNames = Object.freeze(Object.keys(presets)) as readonly Preset[];
