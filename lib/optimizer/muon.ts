import type { Parameter } from '../parameter.js';
import { Optimizer } from './base.js';
import type { GroupOptions } from './groups.js';
import type { MuonOptions } from './options.js';

/**
 * Muon (https://kellerjordan.github.io/posts/muon): the step of `Root` without clipping, unless `gradientThreshold` is
 * given. The momentum buffer accumulates: M ← μM + G.
 */
export class Muon extends Optimizer {
  /**
   * @param params a flat list, or groups with settings of their own; parameters with fewer than two dimensions go to
   * AdamW
   * @throws RootError ERR_INVALID_ARGUMENT, ERR_ADDON_MISSING, ERR_DEVICE_UNAVAILABLE, ERR_OUT_OF_MEMORY
   */
  constructor(params: readonly Parameter[] | readonly GroupOptions[], options: MuonOptions = {}) {
    super('muon', params, options);
  }
}
