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
import { relativeError } from './common/numbers.js';
import { iterated, matrixOf, spectra } from './common/spectra.js';
import { markdownHead, markdownRow } from './common/tables.js';

const SHAPES = '128x128,128x512,512x512,512x2048,2048x2048';
const PRESETS = 'adaptive,muon,polar-express,cans,quintic';

const HELP = `Usage: npx tsx scripts/accuracy.ts [options]

Prints relative errors, ‖X − Y‖ / ‖Y‖ in the Frobenius norm, of orthogonalised matrices X of known singular vectors.
Y is computed from the singular values in float64. The input is rounded to float32 first; the error includes this.

  --shapes <list>      rows x columns, powers of two (default ${SHAPES})
  --presets <list>     presets of coefficients (default ${PRESETS})
  --steps <n>          number of iterations (default 5)
  --device <name>      cpu, cuda or cuda:N (default cpu)
  --precision <list>   one or more of float16, bfloat16, float32 (default: those that the device multiplies)
  --help               print this`;

runMain(() => {
  const options = readOptions(HELP, ['shapes', 'presets', 'steps', 'device', 'precision']);
  if (options === undefined) return;
  const device = (options.device ?? 'cpu') as Device;
  const steps = parsePositive(options.steps ?? '5', '--steps');
  const presets = (options.presets ?? PRESETS).split(',') as Preset[];
  const { cpu, cuda } = devices();
  const possible: Precision[] = device === 'cpu' ? cpu.precisions : ['float16', 'bfloat16', 'float32'];
  const precisions =
    options.precision === undefined ? possible : parseNames(options.precision, possible, '--precision');
  console.log(`${device === 'cpu' ? cpu.description : (cuda.devices[0]?.description ?? '')}, ${steps} iterations\n`);
  console.log(markdownHead(['shape', 'precision', 'spectrum', ...presets]));
  for (const [rows, columns] of parseShapes(options.shapes ?? SHAPES)) {
    const [m, n] = [Math.min(rows, columns), Math.max(rows, columns)];
    for (const [name, spectrum] of Object.entries(spectra)) {
      const sigma = spectrum(m, n / m);
      const x = Float32Array.from(matrixOf(sigma, rows, columns));
      const images = presets.map((preset) => {
        return matrixOf(iterated(sigma, newtonSchulzCoefficients([rows, columns], preset, steps)), rows, columns);
      });
      for (const precision of precisions) {
        const errors = presets.map((coefficients, i) => {
          try {
            const result = orthogonalizeSync(x, [rows, columns], { coefficients, steps, device, precision });
            return relativeError(result, images[i]!).toExponential(1);
          } catch (error) {
            if (error instanceof RootError && error.message.includes(`rounded to ${precision}`)) return 'refused';
            throw error;
          }
        });
        console.log(markdownRow([`${rows}×${columns}`, precision, name, ...errors]));
      }
    }
  }
});
