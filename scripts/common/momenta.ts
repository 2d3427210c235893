/** The momenta of a checkpoint, and what the Newton-Schulz iteration makes of a matrix in float64. */
import { Matrix } from 'ml-matrix';
import { readMetadata } from '../../lib/checkpoint/metadata.js';
import { SafetensorsFile } from '../../lib/checkpoint/reader.js';
import { softThresholdSync, type Triple } from '../../lib/index.js';
import { checkThresholdOption } from '../../lib/threshold.js';

export interface Momentum {
  readonly name: string;
  readonly shape: readonly [rows: number, columns: number];
  readonly values: Float32Array;
}

/**
 * Reads the momenta of the matrices that ROOT or Muon updates. They are clipped where the optimizer clips, so that they
 * are what it would orthogonalise if the next gradient were zero.
 */
export async function readMomenta(path: string): Promise<Momentum[]> {
  const file = await SafetensorsFile.open(path);
  try {
    const momenta: Momentum[] = [];
    for (const { name, algorithm, matrices, settings } of readMetadata(file, path).descriptions.values()) {
      if (algorithm === 'adamw') continue;
      const threshold = checkThresholdOption(settings['threshold'] ?? null, 'threshold');
      const buffer = await file.read(`${name}.momentumBuffer`);
      let start = 0;
      for (const [i, [rows = 0, columns = 0]] of matrices.entries()) {
        const values = buffer.slice(start, (start += rows * columns));
        momenta.push({
          name: matrices.length === 1 ? name : `${name}[${i}]`,
          shape: [rows, columns],
          values: threshold === null ? values : softThresholdSync(values, { ...threshold, device: 'cpu' }).base,
        });
      }
    }
    return momenta;
  } finally {
    await file.close();
  }
}

/** X ← X / (‖X‖ + 1e-7), then X ← aX + (bA + cA²)X with A = XXᵀ for every triple. */
export function iteratedMatrix(
  values: ArrayLike<number>,
  [rows, columns]: readonly [number, number],
  coefficients: readonly Triple[],
): Float64Array {
  const given = Matrix.from1DArray(rows, columns, values);
  const isTall = rows > columns;
  let x = isTall ? given.transpose() : given;
  x.div(x.norm() + 1e-7);
  for (const [a, b, c] of coefficients) {
    const gram = x.mmul(x.transpose());
    const z = gram.mmul(gram).mul(c).add(Matrix.mul(gram, b));
    x = z.mmul(x).add(Matrix.mul(x, a));
  }
  return Float64Array.from((isTall ? x.transpose() : x).to1DArray());
}
