/** Uniform numbers in [0, 1). */
export type Random = () => number;

/**
 * Returns the generator sfc32 of PractRand, seeded through SplitMix32. The same seed and purpose give the same numbers.
 * Different purposes give unrelated numbers, so that drawing more for one purpose does not change another.
 */
export function makeRandom(seed: number, purpose: string): Random {
  let mixed = seed | 0;
  const mix = (): number => {
    mixed = (mixed + 0x9e3779b9) | 0;
    let z = Math.imul(mixed ^ (mixed >>> 16), 0x21f0aaad);
    z = Math.imul(z ^ (z >>> 15), 0x735a2d97);
    return z ^ (z >>> 15);
  };
  for (const letter of purpose) mixed = mix() ^ letter.codePointAt(0)!;
  let [a, b, c, counter] = [mix(), mix(), mix(), 1];
  return () => {
    const sum = (a + b + counter++) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = ((c << 21) | (c >>> 11)) + sum;
    return (sum >>> 0) / 2 ** 32;
  };
}

/** A standard normal deviate, by Box and Muller. */
export function normal(random: Random): number {
  return Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
}

/** Standard normal values. A benchmark needs them because a processor multiplies zeros faster. */
export function gaussian(size: number, random: Random = Math.random): Float32Array {
  return Float32Array.from({ length: size }, () => normal(random));
}
