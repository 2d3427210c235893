import {
  type Device,
  devices,
  newtonSchulzCoefficients,
  orthogonalizeSync,
  type Precision,
  type Preset,
  RootError,
} from '../lib/index.js';
import { parseNames, parsePositive, parseShapes, readOptions, runMain } from './common/command.js';
import { iteratedMatrix, readMomenta } from './common/momenta.js';
import { relativeError } from './common/numbers.js';
import { iterated, matrixOf, spectra } from './common/spectra.js';
import { markdownHead, markdownRow } from './common/tables.js';

const SHAPES = '128x128,128x512,512x512,512x2048,2048x2048';
const PRESETS = 'adaptive,muon,polar-express,cans,quintic';

const HELP = `Usage: npx tsx scripts/accuracy.ts [options]

Prints relative errors, ‖X − Y‖ / ‖Y‖ in the Frobenius norm, of orthogonalised matrices X. Y is what the iteration
gives in float64: from the singular values of a matrix whose singular vectors are known, or by products. The input is
rounded to float32 first; the error includes this.

  --shapes <list>      rows x columns, powers of two (default ${SHAPES})
  --momentum <file>    measure the momenta of a checkpoint instead, such as npm run train writes; ROOT's are clipped
  --presets <list>     presets of coefficients (default ${PRESETS})
  --steps <n>          number of iterations (default 5)
  --device <name>      cpu, cuda or cuda:N (default cpu)
  --precision <list>   one or more of float16, bfloat16, bfloat16x3, float32 (default: those that the device multiplies)
  --compensated <what> on or off: whether float16 is compensated (default on)
  --help               print this`;

/** A matrix to orthogonalise. */
interface Case {
  readonly name: string;
  readonly shape: readonly [rows: number, columns: number];
  readonly x: Float32Array;
  /** The result in float64. */
  readonly imageOf: (preset: Preset) => Float64Array;
}

runMain(async () => {
  const names = ['shapes', 'momentum', 'presets', 'steps', 'device', 'precision', 'compensated'] as const;
  const options = readOptions(HELP, names);
  if (options === undefined) return;
  const device = (options.device ?? 'cpu') as Device;
  const steps = parsePositive(options.steps ?? '5', '--steps');
  const presets = (options.presets ?? PRESETS).split(',') as Preset[];
  const [compensated] = parseNames(options.compensated ?? 'on', ['on', 'off'], '--compensated');
  const { cpu, cuda } = devices();
  const possible: Precision[] = device === 'cpu' ? cpu.precisions : ['float16', 'bfloat16', 'float32'];
  const precisions =
    options.precision === undefined ? possible : parseNames(options.precision, possible, '--precision');
  const cases =
    options.momentum === undefined
      ? withSpectra(parseShapes(options.shapes ?? SHAPES), steps)
      : await ofCheckpoint(options.momentum, steps);
  console.log(
    `${device === 'cpu' ? cpu.description : (cuda.devices[0]?.description ?? '')}, ${steps} iterations, ` +
      `compensated: ${compensated}\n`,
  );
  console.log(markdownHead(['shape', 'precision', 'matrix', ...presets]));
  for (const { name, shape, x, imageOf } of cases) {
    const images = presets.map(imageOf);
    for (const precision of precisions) {
      const errors = presets.map((coefficients, i) => {
        const where = { device, precision, compensated: compensated === 'on' };
        try {
          return relativeError(orthogonalizeSync(x, shape, { coefficients, steps, ...where }), images[i]!);
        } catch (error) {
          if (error instanceof RootError && error.message.includes(`rounded to ${precision}`)) return 'refused';
          throw error;
        }
      });
      const cells = errors.map((error) => (typeof error === 'string' ? error : error.toExponential(1)));
      console.log(markdownRow([shape.join('×'), precision, name, ...cells]));
    }
  }
});

/** Makes the matrices one by one, because large ones take much memory. */
function* withSpectra(shapes: readonly [number, number][], steps: number): Generator<Case> {
  for (const shape of shapes) {
    const [m, n] = [Math.min(...shape), Math.max(...shape)];
    for (const [name, spectrum] of Object.entries(spectra)) {
      const sigma = spectrum(m, n / m);
      const imageOf = (preset: Preset) =>
        matrixOf(iterated(sigma, newtonSchulzCoefficients(shape, preset, steps)), ...shape);
      yield { name, shape, x: Float32Array.from(matrixOf(sigma, ...shape)), imageOf };
    }
  }
}

async function ofCheckpoint(file: string, steps: number): Promise<Case[]> {
  return (await readMomenta(file)).map(({ name, shape, values }) => ({
    name,
    shape,
    x: values,
    imageOf: (preset) => iteratedMatrix(values, shape, newtonSchulzCoefficients(shape, preset, steps)),
  }));
}
