/*
 * Measures how long a large optimizer's calls keep the event loop from running, and prints it as JSON. It is a process
 * of its own, so that nothing else runs there.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { type GroupOptions, Parameter, Root } from '../../../lib/index.js';
import { wait } from '../support.js';

/** Milliseconds. The histogram looks once a millisecond, which each of its values includes. */
export interface Delay {
  readonly p99: number;
  readonly most: number;
}

export type Delays = Record<'step' | 'save' | 'load', Delay[]>;

/** A hundred million parameters: eight layers of a transformer 1024 wide, a group each. */
function makeLarge(): Root {
  const shapes = {
    q: [1024, 1024],
    k: [1024, 1024],
    v: [1024, 1024],
    o: [1024, 1024],
    up: [4096, 1024],
    down: [1024, 4096],
  };
  const noise = Float32Array.from({ length: 4096 * 1024 }, () => Math.random() - 0.5);
  const groups = Array.from({ length: 8 }, (_, layer): GroupOptions => {
    const params = Object.entries(shapes).map(([name, shape]) => {
      const one = new Parameter({ name: `${layer}.${name}`, shape });
      one.data.set(noise.subarray(0, one.size));
      one.grad.set(noise.subarray(noise.length - one.size));
      return one;
    });
    return { params, lr: 0.01 + 0.001 * layer };
  });
  return new Root(groups, { device: 'cpu' });
}

async function delayDuring(call: () => Promise<unknown>): Promise<Delay> {
  await wait(200);
  const histogram = monitorEventLoopDelay({ resolution: 1 });
  histogram.enable();
  await call();
  await wait(5);
  histogram.disable();
  return { p99: histogram.percentile(99) / 1e6, most: histogram.max / 1e6 };
}

async function main(): Promise<void> {
  const folder = mkdtempSync(path.join(tmpdir(), 'root-optimizer-delays-'));
  try {
    const file = path.join(folder, 'run.safetensors');
    const optimizer = makeLarge();
    await optimizer.step();
    const delays: Delays = { step: [], save: [], load: [] };
    for (let round = 0; round < 3; round++) {
      delays.step.push(await delayDuring(() => optimizer.step()));
      delays.save.push(await delayDuring(() => optimizer.save(file)));
      delays.load.push(await delayDuring(() => optimizer.load(file)));
    }
    console.log(JSON.stringify(delays));
  } finally {
    rmSync(folder, { recursive: true });
  }
}

if (require.main === module) void main();
