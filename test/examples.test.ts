import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

const root = path.join(__dirname, '..');

/** Runs an example as its first lines say, and returns what it printed. */
function run(example: string, ...args: string[]): string {
  const command = ['--import', 'tsx', path.join('examples', example), ...args];
  const { status, stdout, stderr } = spawnSync(process.execPath, command, { cwd: root, encoding: 'utf8' });
  if (status !== 0) throw new Error(`${example} ended with ${status}\n${stderr}`);
  return stdout;
}

/** The numbers after a word. */
function numbersAfter(word: string, text: string): number[] {
  return [...text.matchAll(new RegExp(`${word} (\\d+\\.\\d+)`, 'g'))].map(([, number]) => Number(number));
}

test('the network with gradients by hand learns digits', () => {
  const output = run('mlp.ts', '--steps', '80');
  const [, before, after] = /loss (\S+) → (\S+)/.exec(output)!;
  expect(Number(after)).toBeLessThan(0.8 * Number(before));
  expect(Number(/(\S+) % of 1996/.exec(output)![1])).toBeGreaterThan(60);
});

test('the convolutional network of TensorFlow.js learns digits', () => {
  // Its weights begin at random.
  const [before, after] = numbersAfter('loss', run('digits-tfjs.ts', '--steps', '50'));
  expect(after).toBeLessThan(0.8 * before!);
});

test('the transformer of jax-js learns a text', () => {
  const [before, ...later] = numbersAfter('loss', run('transformer-jax.ts', '--steps', '60'));
  expect(later.at(-1)).toBeLessThan(0.85 * before!);
});

describe('the server', () => {
  let folder: string;
  let server: ChildProcess;
  let url: string;

  beforeAll(async () => {
    folder = mkdtempSync(path.join(tmpdir(), 'root-optimizer-server-'));
    const args = ['--import', 'tsx', 'examples/server.ts', '--port', '0', '--parallel', '1', '--folder', folder];
    server = spawn(process.execPath, args, { cwd: root, stdio: ['ignore', 'pipe', 'inherit'] });
    url = await new Promise((resolve) => server.stdout!.once('data', (text: Buffer) => resolve(String(text).trim())));
  });

  afterAll(async () => {
    const ended = new Promise((resolve) => server.once('exit', resolve));
    server.kill('SIGTERM');
    await ended;
    rmSync(folder, { recursive: true });
  });

  interface Status {
    readonly id: number;
    readonly state: string;
    readonly step: number;
    readonly accuracy: number | null;
  }

  const ask = async (method: string, where: string, body?: string) => {
    const response = await fetch(url + where, { method, ...(body === undefined ? {} : { body }) });
    return { status: response.status, body: (await response.json()) as Status };
  };

  /** Follows the events of a training until one satisfies, or until they end. */
  async function follow(id: number, satisfies: (status: Status) => boolean): Promise<Status[]> {
    const { body } = await fetch(`${url}/${id}/events`);
    const seen: Status[] = [];
    let text = '';
    const decoder = new TextDecoder();
    for await (const chunk of body!) {
      text += decoder.decode(chunk as Uint8Array, { stream: true });
      const events = text.split('\n\n');
      text = events.pop()!;
      seen.push(...events.map((one) => JSON.parse(one.replace('data: ', '')) as Status));
      if (seen.some(satisfies)) return seen;
    }
    return seen;
  }

  test('queues, tells of progress, cancels and resumes', async () => {
    expect(await ask('POST', '', '{ "steps": 60 }')).toMatchObject({ status: 201, body: { id: 1, state: 'running' } });
    expect(await ask('POST', '', '{ "steps": 5 }')).toMatchObject({ status: 201, body: { id: 2, state: 'queued' } });
    await follow(1, ({ step }) => step >= 10);
    expect((await ask('DELETE', '/1')).status).toBe(200);
    const cancelled = await follow(1, () => false);
    expect(cancelled.at(-1)!.state).toBe('cancelled');
    const stopped = cancelled.at(-1)!.step;
    expect(stopped).toBeLessThan(60);

    expect((await ask('POST', '/1/resume')).body.state).toBe('queued');
    const [, second] = await Promise.all([follow(2, () => false), follow(1, ({ state }) => state === 'done')]);
    const steps = second.filter(({ state }) => state === 'running').map(({ step }) => step);
    expect(steps.find((step) => step > stopped)).toBe(stopped + 1);
    expect(second.at(-1)).toMatchObject({ step: 60, state: 'done' });
    expect(second.at(-1)!.accuracy).toBeGreaterThan(0.5);
    expect((await ask('GET', '/2')).body).toMatchObject({ step: 5, state: 'done' });
  });

  test.each<[what: string, method: string, where: string, body: string | undefined, status: number]>([
    ['no steps', 'POST', '', '{ "steps": 0 }', 400],
    ['what is no JSON', 'POST', '', 'steps', 400],
    ['a rate in words', 'POST', '', '{ "lr": "fast" }', 400],
    ['20 kB', 'POST', '', ' '.repeat(20_000), 413],
    ['another method', 'PUT', '', '{}', 405],
    ['an unknown training', 'GET', '/99', undefined, 404],
    ['to resume what is done', 'POST', '/2/resume', undefined, 409],
    ['to cancel what is done', 'DELETE', '/2', undefined, 409],
  ])('refuses %s', async (_, method, where, body, status) => {
    expect((await ask(method, where, body)).status).toBe(status);
  });
});
