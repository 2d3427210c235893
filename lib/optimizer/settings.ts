import type * as native from '../../binding.js';
import { fitOnThread } from '../coefficients/fit-thread.js';
import { boundedTriplesFor, fitFor } from '../coefficients/option.js';
import type { Precision } from '../devices.js';
import type { MatrixLayout, Parameter } from '../parameter.js';
import type { MuonGroup, ParamGroup, RootGroup } from './groups.js';
import type { LrScale } from './options.js';

type MatrixSettings = native.OrthogonalSettings['matrices'];

/** For a matrix with so many outputs and inputs. */
const scaleFactors: Readonly<Record<LrScale, (outputs: number, inputs: number) => number>> = {
  rms: (outputs, inputs) => 0.2 * Math.sqrt(Math.max(outputs, inputs)),
  spectral: (outputs, inputs) => Math.sqrt(Math.max(1, outputs / inputs)),
  none: () => 1,
};

/** Turns a group, as it stands at a step, into the settings that the addon takes for each of its parameters. */
export class StepSettings {
  readonly #precision: Precision;
  #made: Pick<MuonGroup, 'coefficients' | 'steps' | 'lrScale'> | undefined;
  #matrices: readonly MatrixSettings[] = [];

  /** @param precision the precision of the products */
  constructor(precision: Precision) {
    this.#precision = precision;
  }

  /** @param step the number of the step to be taken, counted from 1 */
  forStep(group: ParamGroup, step: number): native.ParameterSettings[] {
    if (group.algorithm !== 'adamw') return this.#orthogonal(group);
    const { lr, betas, eps, weightDecay, gradientThreshold } = group;
    const cautious = group.weightDecayKind === 'cautious';
    const [beta1, beta2] = betas;
    return group.params.map(() => ({ lr, beta1, beta2, eps, weightDecay, cautious, gradientThreshold, step }));
  }

  #orthogonal(group: RootGroup | MuonGroup): native.OrthogonalSettings[] {
    const { lr, momentum, nesterov, weightDecay, coefficients, steps, lrScale, gradientThreshold } = group;
    const made = this.#made;
    if (made?.coefficients !== coefficients || made.steps !== steps || made.lrScale !== lrScale) {
      this.#matrices = group.params.map((parameter) =>
        parameter.matrices.map((matrix) => matrixSettings(matrix, group, parameter, this.#precision)),
      );
      this.#made = { coefficients, steps, lrScale };
    }
    const threshold = group.algorithm === 'root' ? group.threshold : null;
    const normalize = group.normalize === null ? null : { beta2: group.beta2 };
    const cautious = group.weightDecayKind === 'cautious';
    const common = { lr, momentum, nesterov, weightDecay, cautious, gradientThreshold, normalize, threshold };
    return this.#matrices.map((matrices) => ({ ...common, matrices }));
  }
}

/** Fits the coefficients that groups need and nobody has fitted yet, on a thread. @see fitOnThread */
export function fitCoefficients(groups: readonly ParamGroup[]): Promise<void> | undefined {
  return fitOnThread(
    groups.flatMap((group) => {
      if (group.algorithm === 'adamw') return [];
      const { params, coefficients, steps } = group;
      return params.flatMap(({ matrices, name }) =>
        matrices.flatMap(({ rows, columns }) => fitFor(rows, columns, coefficients, steps, name)),
      );
    }),
  );
}

function matrixSettings(
  { rows, columns }: MatrixLayout,
  { coefficients, steps, lrScale }: MuonGroup | RootGroup,
  { name, layout }: Parameter,
  precision: Precision,
): MatrixSettings[number] {
  const triples = boundedTriplesFor(rows, columns, coefficients, steps, precision, name);
  const [outputs, inputs] = layout === 'out-in' ? [rows, columns] : [columns, rows];
  return { updateScale: scaleFactors[lrScale](outputs, inputs), coefficients: Float64Array.from(triples.flat()) };
}
