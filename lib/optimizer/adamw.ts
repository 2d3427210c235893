import type { Parameter } from '../parameter.js';
import { Optimizer } from './base.js';
import type { GroupOptions } from './groups.js';
import type { AdamWOptions } from './options.js';

/**
 * AdamW (arXiv 1711.05101) as torch.optim.AdamW computes it: decoupled weight decay, bias correction, `eps` added to
 * the root.
 */
export class AdamW extends Optimizer {
  /**
   * @param params parameters of any shape: a flat list, or groups with settings of their own
   * @throws RootError ERR_INVALID_ARGUMENT, ERR_ADDON_MISSING, ERR_DEVICE_UNAVAILABLE, ERR_OUT_OF_MEMORY
   */
  constructor(params: readonly Parameter[] | readonly GroupOptions[], options: AdamWOptions = {}) {
    super('adamw', params, options);
  }
}
