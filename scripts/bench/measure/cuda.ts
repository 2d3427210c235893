import { addon } from '../../../lib/binding.js';
import {
  type Device,
  devices,
  Muon,
  newtonSchulzCoefficients,
  Parameter,
  type Precision,
  Root,
} from '../../../lib/index.js';
import { deviceMemory } from '../../common/device-memory.js';
import { median, plainFlops } from '../../common/numbers.js';
import { paper } from '../../common/paper.js';
import { gaussian } from '../../common/random.js';
import { milliseconds } from '../../common/time.js';
import type { Peer } from './peer.js';

/** The matrices of a model. */
export interface Case {
  readonly name: string;
  readonly shapes: readonly (readonly [rows: number, columns: number])[];
}

/** What scripts/peers/pytorch_cuda.py is asked for. */
export interface PeerRequest {
  readonly task: string;
  readonly count: number;
  readonly rows: number;
  readonly columns: number;
  readonly repeats: number;
}

export const peerTasks = ['muon', 'torch.optim.Muon', 'root'] as const;

export interface Settings {
  readonly precision: Precision;
  readonly compensated: boolean;
  readonly device: Device;
  readonly rounds: number;
}

/** Median milliseconds of steps. */
export interface Figures {
  readonly muonMs: number;
  /** The paper's step. */
  readonly rootMs: number;
  /** A step of ROOT with its default options, which clip the gradient as well. */
  readonly defaultMs: number;
  /** Such a step that copies gradients and parameters in and out. */
  readonly copyingMs: number;
  /** By the task; without those that no peer takes. */
  readonly peerMs: Readonly<Record<string, number>>;
  /** Floating-point operations of a step, counted as five plain iterations, and as the addon computes them. */
  readonly plainFlops: number;
  readonly executedFlops: number;
  readonly memoryBytes: number;
}

/** Measures steps on the device's own copies, and those of the peer in turns with them. */
export async function measureCase(
  { shapes }: Case,
  settings: Settings,
  peer: Peer<PeerRequest> | undefined,
): Promise<Figures> {
  const { precision, compensated, device, rounds } = settings;
  const { description } = deviceOf(device);
  const memory = deviceMemory(description.startsWith('Emulated'), Number(/\d+$/.exec(device)?.[0] ?? 0));
  const random = gaussian(Math.max(...shapes.map(([rows, columns]) => rows * columns)));
  const options = { device, precision, compensated, lr: 1e-3 };
  const makers = [
    (params: Parameter[]) => new Muon(params, { ...options, hostSync: 'manual' }),
    (params: Parameter[]) => new Root(params, { ...options, ...paper, hostSync: 'manual' }),
    (params: Parameter[]) => new Root(params, { ...options, hostSync: 'manual' }),
  ];
  const held = makers.map((make) => {
    const params = shapes.map((shape, i) => new Parameter({ name: `w${i}`, shape }));
    const optimizer = make(params);
    for (const one of params) memory.write(optimizer.deviceMemory(one).grad, random.subarray(0, one.size));
    return optimizer;
  });
  const steps = held.map((optimizer) => () => optimizer.stepSync());
  const [{ ours, theirs }, { memoryBytes }] = [await inTurns(steps, shapes, rounds, peer), held[1]!];
  for (const optimizer of held) optimizer.dispose();

  const params = shapes.map(([rows, columns], i) => {
    return new Parameter({ name: `w${i}`, shape: [rows, columns], grad: random.subarray(0, rows * columns) });
  });
  const copying = new Root(params, options);
  const copies = await inTurns([() => copying.stepSync()], shapes, Math.max(3, Math.round(rounds / 3)), undefined);
  copying.dispose();
  const [muonMs, rootMs, defaultMs] = ours as [number, number, number];
  const flops = flopsOf(shapes, precision, compensated);
  return { muonMs, rootMs, defaultMs, copyingMs: copies.ours[0]!, peerMs: theirs, memoryBytes, ...flops };
}

/** Three calls of each task come first and do not count. */
async function inTurns(
  tasks: readonly (() => unknown)[],
  shapes: Case['shapes'],
  rounds: number,
  peer: Peer<PeerRequest> | undefined,
): Promise<{ ours: number[]; theirs: Record<string, number> }> {
  for (const task of tasks) for (let i = 0; i < 3; i++) task();
  const samples: number[][] = tasks.map(() => []);
  const theirs = new Map<string, number[]>();
  const [first] = shapes;
  const isOneShape = shapes.every(([rows, columns]) => rows === first![0] && columns === first![1]);
  const turns = peer === undefined ? 1 : 3;
  for (let turn = 0; turn < turns; turn++) {
    for (let round = 0; round < Math.ceil(rounds / turns); round++) {
      tasks.forEach((task, i) => samples[i]!.push(milliseconds(task)));
    }
    if (peer === undefined || !isOneShape) continue;
    for (const task of peerTasks.filter((one) => peer.introduction.tasks.includes(one))) {
      const repeats = task === 'root' ? 1 : Math.ceil(rounds / turns);
      const [rows, columns] = first!;
      const found = await peer.measure({ task, count: shapes.length, rows, columns, repeats });
      theirs.set(task, [...(theirs.get(task) ?? []), ...found]);
    }
  }
  return {
    ours: samples.map(median),
    theirs: Object.fromEntries([...theirs].map(([task, list]) => [task, median(list)])),
  };
}

function flopsOf(
  shapes: Case['shapes'],
  precision: Precision,
  compensated: boolean,
): Pick<Figures, 'plainFlops' | 'executedFlops'> {
  let [plain, executed] = [0, 0];
  for (const [rows, columns] of shapes) {
    const coefficients = Float64Array.from(newtonSchulzCoefficients([rows, columns]).flat());
    plain += plainFlops(rows, columns);
    executed += addon().newtonSchulzPlan('cuda:0', precision, compensated, rows, columns, coefficients).flops;
  }
  return { plainFlops: plain, executedFlops: executed };
}

/** @throws Error where there is no such device */
export function deviceOf(device: Device): { description: string } {
  const { cuda } = devices();
  const found = cuda.devices.find((one) => device === 'cuda' || one.name === device);
  if (found === undefined) throw new Error(`There is no device ${device}: ${cuda.reason ?? 'the first is cuda:0'}`);
  return found;
}
