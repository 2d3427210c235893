import { parseArgs } from 'node:util';
import {
  type Device,
  devices,
  newtonSchulzCoefficients,
  orthogonalizeSync,
  type Precision,
  type Preset,
  RootError,
} from '../lib/index.js';
import { iterated, matrixOf, spectra } from './common/spectra.js';

const HELP = `Usage: npx tsx scripts/accuracy.ts [options]

Relative errors, ‖X − Y‖ / ‖Y‖ in the Frobenius norm, of orthogonalised matrices of known singular vectors, where Y is computed from the
singular values in float64. The input is rounded to float32 first, which is part of the error.

  --shapes <list>      powers of two (default 128x128,128x512,512x512,512x2048,2048x2048)
  --presets <list>     default adaptive,muon,polar-express,cans,quintic
  --steps <n>          iterations (default 5)
  --device <name>      cpu, cuda or cuda:N (default cpu)
  --precision <list>   of float16, bfloat16, float32 (default: what the device multiplies)
  --help               print this`;

const text = { type: 'string' } as const;
const { values } = parseArgs({
  options: { shapes: text, presets: text, steps: text, device: text, precision: text, help: { type: 'boolean' } },
});
if (values.help) console.log(HELP);
else main();

function main(): void {
  const device = (values.device ?? 'cpu') as Device;
  const steps = Number(values.steps ?? 5);
  const presets = (values.presets ?? 'adaptive,muon,polar-express,cans,quintic').split(',') as Preset[];
  const shapes = (values.shapes ?? '128x128,128x512,512x512,512x2048,2048x2048')
    .split(',')
    .map((shape) => shape.split('x').map(Number) as [number, number]);
  const { cpu, cuda } = devices();
  const possible: Precision[] = device === 'cpu' ? cpu.precisions : ['float16', 'bfloat16', 'float32'];
  const precisions = (values.precision?.split(',') as Precision[] | undefined) ?? possible;
  const missing = precisions.find((one) => !possible.includes(one));
  if (missing !== undefined)
    throw new Error(`Expected --precision to name some of ${possible.join(', ')}, got "${missing}"`);
  console.log(`${device === 'cpu' ? cpu.description : (cuda.devices[0]?.description ?? '')}, ${steps} iterations\n`);
  console.log(`| shape | precision | spectrum | ${presets.join(' | ')} |`);
  console.log(`|---|---|---|${'---|'.repeat(presets.length)}`);
  for (const [rows, columns] of shapes) {
    const [m, n] = [Math.min(rows, columns), Math.max(rows, columns)];
    for (const [name, spectrum] of Object.entries(spectra)) {
      const sigma = spectrum(m, n / m);
      const x = Float32Array.from(matrixOf(sigma, rows, columns));
      const images = presets.map((preset) =>
        matrixOf(iterated(sigma, newtonSchulzCoefficients([rows, columns], preset, steps)), rows, columns),
      );
      for (const precision of precisions) {
        const errors = presets.map((coefficients, i) => {
          try {
            return relativeError(
              orthogonalizeSync(x, [rows, columns], { coefficients, steps, device, precision }),
              images[i]!,
            ).toExponential(1);
          } catch (error) {
            if (error instanceof RootError && error.message.includes(`rounded to ${precision}`)) return 'refused';
            throw error;
          }
        });
        console.log(`| ${rows}×${columns} | ${precision} | ${name} | ${errors.join(' | ')} |`);
      }
    }
  }
}

function relativeError(x: Float32Array, y: Float64Array): number {
  let [difference, norm] = [0, 0];
  for (let i = 0; i < x.length; i++) {
    difference += (x[i]! - y[i]!) ** 2;
    norm += y[i]! ** 2;
  }
  return Math.sqrt(difference / norm);
}
