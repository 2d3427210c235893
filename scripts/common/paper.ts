/** The settings with which `Root` takes the steps of its paper. They are the defaults of `Muon`. */
export const paper = { gradientThreshold: null, normalize: null } as const;
