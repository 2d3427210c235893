import type { Writable } from 'node:stream';
import { SingleBar } from 'cli-progress';

/** What a long call shows of itself. */
export interface Activity {
  /** @param what what is being done, in a few words */
  update(done: number, what?: string): void;
  end(): void;
}

export interface ActivityOptions {
  /** The number that `done` goes to. Without one, the time that has passed is shown. */
  readonly total?: number;
  /** Default: standard error. */
  readonly stream?: Writable;
  /** Milliseconds from one line to the next where there is no terminal; default 5000. */
  readonly interval?: number;
}

/**
 * Shows that a long call goes on: a bar or a clock on a terminal, which goes away at the end, and elsewhere a line
 * every few seconds. Calls that hold up the event loop call `update` between their parts.
 */
export function startActivity(label: string, options: ActivityOptions = {}): Activity {
  const { total, stream = process.stderr, interval = 5000 } = options;
  if ((stream as { isTTY?: boolean }).isTTY !== true) return printLines(label, total, stream, interval);
  return total === undefined ? drawClock(label, stream) : drawBar(label, total, stream);
}

/** Shows an activity for as long as `work` takes. */
export async function during<T>(
  label: string,
  work: (activity: Activity) => T | Promise<T>,
  options: ActivityOptions = {},
): Promise<T> {
  const activity = startActivity(label, options);
  try {
    return await work(activity);
  } finally {
    activity.end();
  }
}

function drawBar(label: string, total: number, stream: Writable): Activity {
  const bar = new SingleBar({
    format: `${label} {bar} {value}/{total} {what}`,
    stream,
    barsize: 24,
    barCompleteChar: '█',
    barIncompleteChar: '░',
    clearOnComplete: true,
  });
  bar.start(total, 0, { what: '' });
  return { update: (done, what = '') => bar.update(done, { what }), end: () => bar.stop() };
}

function drawClock(label: string, stream: Writable): Activity {
  const started = performance.now();
  let note = '';
  const draw = () => stream.write(`\r\u001b[K${label}… ${seconds(started)} ${note}`);
  draw();
  const timer = setInterval(draw, 1000).unref();
  return {
    update(_, what = '') {
      note = what;
      draw();
    },
    end() {
      clearInterval(timer);
      stream.write('\r\u001b[K');
    },
  };
}

function printLines(label: string, total: number | undefined, stream: Writable, interval: number): Activity {
  const started = performance.now();
  let last = started;
  let state = '';
  const print = () => {
    if (performance.now() - last < interval) return;
    last = performance.now();
    stream.write(`${label}: ${state}${seconds(started)}\n`);
  };
  const timer = setInterval(print, Math.max(interval / 5, 10)).unref();
  return {
    update(done, what = '') {
      state = `${total === undefined ? '' : `${done} of ${total}, `}${what === '' ? '' : `${what}, `}`;
      print();
    },
    end: () => clearInterval(timer),
  };
}

function seconds(started: number): string {
  return `${Math.round((performance.now() - started) / 1000)} s`;
}
