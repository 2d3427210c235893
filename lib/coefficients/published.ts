import type { Triple } from './triple.js';

/** Keller Jordan's triple for Muon (https://kellerjordan.github.io/posts/muon), the same in every iteration. */
export const muon: readonly Triple[] = [[3.4445, -4.775, 2.0315]];

/** ROOT's triples (arXiv 2511.20626), by the shorter and the longer side. */
export const paper: readonly { readonly shape: readonly [number, number]; readonly triples: readonly Triple[] }[] = [
  { shape: [2048, 2048], triples: [[3.4916, -4.8224, 2.1095]] },
  { shape: [2048, 3072], triples: [[3.4509, -4.579, 1.9325]] },
  { shape: [2048, 8192], triples: [[2.9794, -3.6674, 1.6207]] },
  { shape: [2048, 16384], triples: [[3.1943, -3.8221, 1.5322]] },
];

/** p(x / s), which leaves room for singular values that rounding pushes above 1. */
const withSafety = (s: number, [a, b, c]: Triple): Triple => [a / s, b / s ** 3, c / s ** 5];

/**
 * The triples of Polar Express, optimal for the spectral norm, iteration by iteration (arXiv 2505.16932), with its
 * safety factor.
 */
export const polarExpress: readonly Triple[] = (
  [
    [8.28721201814563, -23.595886519098837, 17.300387312530933],
    [4.107059111542203, -2.9478499167379106, 0.5448431082926601],
    [3.9486908534822946, -2.908902115962949, 0.5518191394370137],
    [3.3184196573706015, -2.488488024314874, 0.51004894012372],
    [2.300652019954817, -1.6689039845747493, 0.4188073119525673],
    [1.875, -1.25, 0.375],
  ] satisfies Triple[]
).map((triple) => withSafety(1.01, triple));

/** Chebyshev-optimal triples (arXiv 2506.10935). */
export const cans: readonly Triple[] = [
  [8.4703, -25.1081, 18.6293],
  [4.1828, -3.1087, 0.5806],
  [3.9619, -2.9541, 0.563],
  [3.2866, -2.4647, 0.5074],
  [2.2737, -1.6447, 0.4162],
];

/** You Jiacheng's sequence, https://x.com/YouJiacheng/status/1893704552689303901. */
export const quintic: readonly Triple[] = [
  [4.0848, -6.8946, 2.927],
  [3.9505, -6.3029, 2.6377],
  [3.7418, -5.5913, 2.3037],
  [2.8769, -3.1427, 1.2046],
  [2.8366, -3.0525, 1.2012],
];

/**
 * DeepSeek-V4's ten iterations (its technical report, https://huggingface.co/deepseek-ai/DeepSeek-V4-Pro, as
 * NVIDIA's Emerging-Optimizers cites it): eight of Muon's, then two that converge.
 */
export const deepseekV4: readonly Triple[] = [
  ...Array.from({ length: 8 }, () => muon[0]!),
  ...Array.from({ length: 2 }, (): Triple => [2, -1.5, 0.5]),
];

/**
 * Five cubic iterations (arXiv 2606.00371, numbers as in NVIDIA's Emerging-Optimizers). As c is 0, the square of the
 * Gram matrix is never formed.
 */
export const cubic5: readonly Triple[] = [
  [3.3656576, -3.3420992, 0],
  [2.5744352, -1.4957376, 0],
  [2.5368962, -1.431257, 0],
  [2.4418906, -1.276404, 0],
  [2.2230472, -0.963065, 0],
];
