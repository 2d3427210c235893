import type * as native from '../../binding.js';
import { boundedTriplesFor } from '../coefficients/option.js';
import type { Precision } from '../devices.js';
import type { MatrixLayout } from '../parameter.js';
import type { MuonGroup, ParamGroup, RootGroup } from './groups.js';
import type { LrScale } from './options.js';

type MatrixSettings = native.OrthogonalSettings['matrices'];

const scaleFactors: Readonly<Record<LrScale, (matrix: MatrixLayout) => number>> = {
  rms: ({ rows, columns }) => 0.2 * Math.sqrt(Math.max(rows, columns)),
  spectral: ({ rows, columns }) => Math.sqrt(Math.max(1, rows / columns)),
  none: () => 1,
};

/** Turns a group, as it stands at a step, into the settings that the addon takes for each of its parameters. */
export class StepSettings {
  readonly #group: ParamGroup;
  readonly #precision: Precision;
  #made: Pick<MuonGroup, 'coefficients' | 'steps' | 'lrScale'> | undefined;
  #matrices: readonly MatrixSettings[] = [];

  /** @param precision the precision of the products */
  constructor(group: ParamGroup, precision: Precision) {
    this.#group = group;
    this.#precision = precision;
  }

  /** @param step the number of the step to be taken, counted from 1 */
  forStep(step: number): native.ParameterSettings[] {
    const group = this.#group;
    if (group.algorithm !== 'adamw') return this.#orthogonal(group);
    const { lr, betas, eps, weightDecay } = group;
    return group.params.map(() => ({ lr, beta1: betas[0], beta2: betas[1], eps, weightDecay, step }));
  }

  #orthogonal(group: RootGroup | MuonGroup): native.OrthogonalSettings[] {
    const { lr, momentum, nesterov, weightDecay, coefficients, steps, lrScale } = group;
    const made = this.#made;
    if (made?.coefficients !== coefficients || made.steps !== steps || made.lrScale !== lrScale) {
      this.#matrices = group.params.map(({ name, matrices }) =>
        matrices.map((matrix) => matrixSettings(matrix, group, name, this.#precision)),
      );
      this.#made = { coefficients, steps, lrScale };
    }
    const threshold = group.algorithm === 'root' ? group.threshold : null;
    return this.#matrices.map((matrices) => ({ lr, momentum, nesterov, weightDecay, threshold, matrices }));
  }
}

function matrixSettings(
  matrix: MatrixLayout,
  { coefficients, steps, lrScale }: MuonGroup | RootGroup,
  name: string,
  precision: Precision,
): MatrixSettings[number] {
  const triples = boundedTriplesFor(matrix.rows, matrix.columns, coefficients, steps, precision, name);
  return { updateScale: scaleFactors[lrScale](matrix), coefficients: Float64Array.from(triples.flat()) };
}
