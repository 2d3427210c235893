import { Muon, Parameter, type Triple } from '../../lib/index.js';
import * as reference from '../reference.js';
import { gaussian, relativeError } from '../support.js';

interface TorchMuon {
  lr: number;
  weight_decay: number;
  momentum: number;
  nesterov: boolean;
  ns_coefficients: Triple;
  ns_steps: number;
  adjust_lr_fn: 'original' | 'match_rms_adamw';
}

/** A step of torch.optim.Muon (PyTorch 2.13) in float64, without its cast to bfloat16; in place. */
function torchStep(data: Float64Array, buffer: Float64Array, gradient: Float32Array, shape: number[], o: TorchMuon) {
  const [rows, columns] = shape as [number, number];
  buffer.forEach((value, i) => (buffer[i] = value + (1 - o.momentum) * (gradient[i]! - value)));
  const update = o.nesterov ? buffer.map((value, i) => gradient[i]! + o.momentum * (value - gradient[i]!)) : buffer;
  const triples = Array.from({ length: o.ns_steps }, () => o.ns_coefficients);
  const x = reference.newtonSchulz(update, rows, columns, triples);
  const ratio =
    o.adjust_lr_fn === 'original' ? Math.sqrt(Math.max(1, rows / columns)) : 0.2 * Math.sqrt(Math.max(rows, columns));
  data.forEach((value, i) => (data[i] = value * (1 - o.lr * o.weight_decay) - o.lr * ratio * x[i]!));
}

// The table of docs/coming-from-torch.md.
const toOurs = (o: TorchMuon) => ({
  lr: o.lr,
  weightDecay: o.weight_decay,
  momentum: o.momentum,
  nesterov: o.nesterov,
  coefficients: o.ns_coefficients,
  steps: o.ns_steps,
  lrScale: ({ original: 'spectral', match_rms_adamw: 'rms' } as const)[o.adjust_lr_fn],
});

const muon: Triple = [3.4445, -4.775, 2.0315];
test.each<[number[], Partial<TorchMuon>]>([
  [[24, 40], {}],
  [[40, 24], { adjust_lr_fn: 'match_rms_adamw' }],
  [[40, 24], { nesterov: false, momentum: 0.8 }],
  [[17, 17], { ns_steps: 7, weight_decay: 0 }],
  [[16, 64], { ns_coefficients: [2, -1.5, 0.5], lr: 0.05, weight_decay: 0.5 }],
])('Muon takes the steps of torch.optim.Muon: %j %j', (shape, given) => {
  const torch: TorchMuon = {
    ...{ lr: 0.02, weight_decay: 0.1, momentum: 0.95, nesterov: true },
    ...{ ns_coefficients: muon, ns_steps: 5, adjust_lr_fn: 'original' },
    ...given,
  };
  const w = new Parameter({ name: 'w', shape });
  w.data.set(gaussian(w.size, 1));
  using optimizer = new Muon([w], { ...toOurs(torch), device: 'cpu' });
  const [data, buffer] = [Float64Array.from(w.data), new Float64Array(w.size)];
  for (let step = 0; step < 6; step++) {
    w.grad.set(gaussian(w.size, 10 + step));
    optimizer.stepSync();
    torchStep(data, buffer, w.grad, shape, torch);
    expect(relativeError(w.data, data)).toBeLessThan(1e-5);
  }
});
