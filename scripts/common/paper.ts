/** The settings with which `Root` takes the steps of its paper. `Muon` and `AdamW` have them by default. */
export const paper = { gradientThreshold: null, normalize: null } as const;
