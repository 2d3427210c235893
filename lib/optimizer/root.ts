import type { Parameter } from '../parameter.js';
import { Optimizer } from './base.js';
import type { GroupOptions } from './groups.js';
import type { RootOptions } from './options.js';

/**
 * ROOT (arXiv 2511.20626): Muon whose momentum matrices are clipped at a quantile of their absolute values before they
 * are orthogonalised. For a matrix θ of m × n with gradient G:
 *
 * - G̃ = G, clipped and limited by `gradientThreshold`, which is not of the paper; with null G̃ is G
 * - M ← μM + G̃
 * - U = G̃ + μM, or M without `nesterov`
 * - ε = scale · quantile of |U|
 * - B = clamp(U, −ε, ε), or U where ε is 0
 * - X = Newton-Schulz of B
 * - θ ← (1 − lr·λ)θ − lr·s·X with the scale s of `lrScale`
 */
export class Root extends Optimizer {
  /**
   * @param params a flat list, or groups with settings of their own; parameters with fewer than two dimensions go to
   * AdamW
   * @throws RootError ERR_INVALID_ARGUMENT, ERR_ADDON_MISSING, ERR_DEVICE_UNAVAILABLE, ERR_OUT_OF_MEMORY
   */
  constructor(params: readonly Parameter[] | readonly GroupOptions[], options: RootOptions = {}) {
    super('root', params, options);
  }
}
