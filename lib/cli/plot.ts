const levels = ' ▁▂▃▄▅▆▇█';

/** The powers of ten that a spectrum is drawn over, down from its largest value. */
export const spectrumDecades = 6;

/**
 * Returns the shares of singular values in bins of equal width in the logarithm, from 10^−6 of the largest to the
 * largest. Smaller values count in the first bin.
 */
export function logHistogram(values: readonly number[], weights: readonly number[], bins: number): number[] {
  const most = Math.max(...values);
  const shares = new Array<number>(bins).fill(0);
  if (!(most > 0)) return shares;
  for (const [i, value] of values.entries()) {
    const place = 1 + Math.log10(Math.max(value / most, Number.MIN_VALUE)) / spectrumDecades;
    shares[Math.min(Math.max(Math.floor(place * bins), 0), bins - 1)]! += weights[i]!;
  }
  return shares;
}

/** Draws shares as a line of bars, the largest as high as the line. What is not 0 is seen. */
export function drawBars(shares: readonly number[]): string {
  const most = Math.max(...shares);
  if (!(most > 0)) return '';
  return shares.map((share) => levels[share === 0 ? 0 : Math.max(1, Math.round((share / most) * 8))]!).join('');
}
