import { Muon, orthogonalize, Parameter } from '../../../lib/index.js';
import { gaussian } from '../../support.js';

/** Calls that are going on when a thread or a process ends. */
export type Call = 'step' | 'save' | 'load' | 'function';

/** An optimizer whose steps, saves and loads take some milliseconds. */
export function makeBusy(): Muon {
  const side = 400;
  const [data, grad] = [gaussian(side * side, 1), gaussian(side * side, 2)];
  const options = { device: 'cpu', coefficients: 'muon', threads: 2 } as const;
  return new Muon([new Parameter({ name: 'w', shape: [side, side], data, grad })], options);
}

/**
 * Makes one call after the other, for ever.
 * @param file a checkpoint of `makeBusy`, which is loaded or replaced
 * @param onBusy is called when the first call has begun
 */
export async function callForEver(call: Call, file: string, onBusy: () => void): Promise<never> {
  const optimizer = makeBusy();
  const calls: Record<Call, () => Promise<unknown>> = {
    step: () => optimizer.step(),
    save: () => optimizer.save(file),
    load: () => optimizer.load(file),
    function: () => orthogonalize(gaussian(90_000), [300, 300], { coefficients: 'muon' }),
  };
  const first = calls[call]();
  onBusy();
  await first;
  for (;;) await calls[call]();
}
