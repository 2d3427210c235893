/** A symmetric matrix with elements only on the diagonal and beside it: `beside[i]` lies in row i, column i + 1. */
export interface Tridiagonal {
  readonly diagonal: Float64Array;
  readonly beside: Float64Array;
}

/** Enough for any matrix: QL needs two iterations a value on average. Only values that are not finite need more. */
const mostIterations = 100;

/**
 * Returns a tridiagonal matrix with the same eigenvalues, by Householder's reflections (Golub and Van Loan, Matrix
 * Computations, 8.3.1). This takes 4m³/3 operations.
 * @param symmetric m rows of m. Only the lower triangle is read, and it is overwritten.
 */
export function tridiagonalize(symmetric: readonly Float64Array[]): Tridiagonal {
  const m = symmetric.length;
  const diagonal = new Float64Array(m);
  const beside = new Float64Array(Math.max(m - 1, 0));
  const normal = new Float64Array(m);
  const change = new Float64Array(m);
  for (let k = 0; k < m; k++) {
    diagonal[k] = symmetric[k]![k]!;
    if (k === m - 1) break;
    let square = 0;
    for (let i = k + 1; i < m; i++) {
      normal[i] = symmetric[i]![k]!;
      square += normal[i]! * normal[i]!;
    }
    // The reflection takes the column below the diagonal to its length times the first unit vector. The sign is the one
    // that cancels no digits.
    const first = normal[k + 1]!;
    beside[k] = first > 0 ? -Math.sqrt(square) : Math.sqrt(square);
    normal[k + 1] = first - beside[k]!;
    const half = square - first * beside[k]!;
    if (half > 0) reflect(symmetric, normal, change, k + 1, half);
  }
  return { diagonal, beside };
}

/** S ← HSH in the rows and columns from `from` on, with H = I − vvᵀ / half and half = vᵀv / 2. */
function reflect(
  symmetric: readonly Float64Array[],
  v: Float64Array,
  change: Float64Array,
  from: number,
  half: number,
): void {
  const m = symmetric.length;
  change.fill(0);
  for (let i = from; i < m; i++) {
    const row = symmetric[i]!;
    let sum = row[i]! * v[i]!;
    for (let j = from; j < i; j++) {
      sum += row[j]! * v[j]!;
      change[j]! += row[j]! * v[i]!;
    }
    change[i]! += sum;
  }
  let along = 0;
  for (let i = from; i < m; i++) along += change[i]! * v[i]!;
  for (let i = from; i < m; i++) change[i] = (change[i]! - (along / (2 * half)) * v[i]!) / half;
  for (let i = from; i < m; i++) {
    const row = symmetric[i]!;
    for (let j = from; j <= i; j++) row[j]! -= v[i]! * change[j]! + change[i]! * v[j]!;
  }
}

/**
 * Returns the eigenvalues, each with the square of the first component of its vector. These are the nodes and weights
 * of a Gauss quadrature (Golub and Welsch, Mathematics of Computation 23, 1969). The method is implicit QL.
 */
export function quadrature(matrix: Tridiagonal): [value: number, weight: number][] {
  const m = matrix.diagonal.length;
  const diagonal = matrix.diagonal.slice();
  const beside = new Float64Array(m);
  beside.set(matrix.beside);
  const components = new Float64Array(m);
  components[0] = 1;
  for (let low = 0; low < m; low++) {
    for (let iteration = 0; iteration < mostIterations; iteration++) {
      const high = endOfBlock(diagonal, beside, low);
      if (high === low) break;
      chase(diagonal, beside, components, low, high);
    }
  }
  return Array.from(diagonal, (value, i) => [value, components[i]! ** 2]);
}

/** The last index of the block that begins at `low`: what couples it to the next one is too small to count. */
function endOfBlock(diagonal: Float64Array, beside: Float64Array, low: number): number {
  let high = low;
  while (high + 1 < diagonal.length) {
    const size = Math.abs(diagonal[high]!) + Math.abs(diagonal[high + 1]!);
    if (Math.abs(beside[high]!) <= Number.EPSILON * size) break;
    high++;
  }
  return high;
}

/** One QL iteration with Wilkinson's shift: rotations from the end of a block to its beginning. */
function chase(
  diagonal: Float64Array,
  beside: Float64Array,
  components: Float64Array,
  low: number,
  high: number,
): void {
  const ratio = (diagonal[low + 1]! - diagonal[low]!) / (2 * beside[low]!);
  const root = Math.hypot(ratio, 1);
  let bulge = diagonal[high]! - diagonal[low]! + beside[low]! / (ratio + (ratio < 0 ? -root : root));
  let [sine, cosine, shift] = [1, 1, 0];
  for (let i = high - 1; i >= low; i--) {
    const outer = sine * beside[i]!;
    const inner = cosine * beside[i]!;
    const length = Math.hypot(outer, bulge);
    beside[i + 1] = length;
    if (length === 0) {
      // The block falls apart here.
      diagonal[i + 1]! -= shift;
      beside[high] = 0;
      return;
    }
    sine = outer / length;
    cosine = bulge / length;
    const shifted = diagonal[i + 1]! - shift;
    const turned = (diagonal[i]! - shifted) * sine + 2 * cosine * inner;
    shift = sine * turned;
    diagonal[i + 1] = shifted + shift;
    bulge = cosine * turned - inner;
    const component = components[i + 1]!;
    components[i + 1] = sine * components[i]! + cosine * component;
    components[i] = cosine * components[i]! - sine * component;
  }
  diagonal[low]! -= shift;
  beside[low] = bulge;
  beside[high] = 0;
}
