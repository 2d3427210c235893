import type { Writable } from 'node:stream';
import { SingleBar } from 'cli-progress';
import type { TextStream } from './stream.js';

export interface ProgressOptions {
  /** The text before the bar. */
  label?: string | undefined;
  /** Default: standard error. The bar is drawn on terminals only; elsewhere there are lines. */
  stream?: TextStream | undefined;
  /** Milliseconds from one line to the next where there is no terminal; default 10000. */
  interval?: number | undefined;
}

export interface ProgressState {
  readonly loss: number;
  readonly lr: number;
}

export interface Progress {
  update(step: number, state: ProgressState): void;
  close(): void;
}

export function startProgress(steps: number, options: ProgressOptions): Progress {
  const { label = 'training', stream = process.stderr, interval = 10_000 } = options;
  return (stream as { isTTY?: boolean }).isTTY === true
    ? drawBar(steps, label, stream as Writable)
    : printLines(steps, label, stream, interval);
}

function drawBar(steps: number, label: string, stream: Writable): Progress {
  const bar = new SingleBar({
    format: `${label} {bar} {value}/{total} | loss {loss} | lr {lr} | {left} left`,
    stream,
    barsize: 24,
    barCompleteChar: '█',
    barIncompleteChar: '░',
  });
  const left = remaining(steps);
  bar.start(steps, 0, { loss: '–', lr: '–', left: '–' });
  return {
    update: (step, { loss, lr }) =>
      bar.update(step, { loss: loss.toFixed(4), lr: lr.toExponential(1), left: left(step) }),
    close: () => bar.stop(),
  };
}

function printLines(steps: number, label: string, stream: TextStream, interval: number): Progress {
  const left = remaining(steps);
  let last = -Infinity;
  return {
    update(step, { loss, lr }) {
      const now = performance.now();
      if (step < steps && now - last < interval) return;
      last = now;
      stream.write(
        `${label}: step ${step} of ${steps}, loss ${loss.toFixed(4)}, lr ${lr.toExponential(1)}, ${left(step)} left\n`,
      );
    },
    close: () => undefined,
  };
}

/**
 * Estimates the time that is left. The first step of a run counts little, because compilers and caches warm up in it.
 * Where training has resumed, that is a later one.
 */
function remaining(steps: number): (step: number) => string {
  const started = performance.now();
  let first: { step: number; at: number } | undefined;
  return (step) => {
    const now = performance.now();
    first ??= { step, at: now };
    const each = step === first.step ? now - started : (now - first.at) / (step - first.step);
    return duration((each * (steps - step)) / 1000);
  };
}

function duration(seconds: number): string {
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  const minutes = Math.floor(whole / 60);
  return minutes < 60 ? `${minutes} min ${whole % 60} s` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}
