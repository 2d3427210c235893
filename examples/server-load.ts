// Loads `server.ts` on loopback: trainings that run at once, listeners to their progress, and requests as fast as a few
// clients make them. Prints what they waited for, and the delay of the server's event loop.
//
//   npm run example -- examples/server-load.ts --seconds 10
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';

const { values } = parseArgs({
  options: {
    seconds: { type: 'string', default: '10' },
    trainings: { type: 'string', default: '4' },
    parallel: { type: 'string', default: '2' },
    listeners: { type: 'string', default: '20' },
    clients: { type: 'string', default: '8' },
  },
});

async function main(): Promise<void> {
  const folder = mkdtempSync(path.join(tmpdir(), 'root-optimizer-server-'));
  const args = ['--import', 'tsx', path.join(__dirname, 'server.ts'), '--port', '0', '--folder', folder];
  const server = spawn(process.execPath, [...args, '--parallel', values.parallel], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const ended = new Promise((resolve) => server.once('exit', resolve));
  const url = await new Promise<string>((resolve) =>
    server.stdout.once('data', (text) => resolve(String(text).trim())),
  );
  const get = async (path_: string) => (await fetch(url + path_)).json() as Promise<{ step: number; state: string }>;

  const ids = Array.from({ length: Number(values.trainings) }, (_, i) => i + 1);
  await Promise.all(ids.map(() => fetch(url, { method: 'POST', body: '{ "steps": 100000 }' })));
  let events = 0;
  const listen = async (id: number) => {
    const { body } = await fetch(`${url}/${id}/events`);
    const decoder = new TextDecoder();
    for await (const chunk of body!) events += decoder.decode(chunk as Uint8Array).split('data:').length - 1;
  };
  // The listeners stay till the server ends.
  for (let i = 0; i < Number(values.listeners); i++) listen(ids[i % ids.length]!).catch(() => undefined);
  // The first steps wait for compilers and caches.
  while ((await get('/1')).step < 3) await new Promise((resolve) => setTimeout(resolve, 100));

  const waits: number[] = [];
  const until = performance.now() + 1000 * Number(values.seconds);
  const client = async (id: number) => {
    while (performance.now() < until) {
      const started = performance.now();
      await get(`/${id}`);
      waits.push(performance.now() - started);
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  };
  await Promise.all(Array.from({ length: Number(values.clients) }, (_, i) => client(ids[i % ids.length]!)));
  waits.sort((a, b) => a - b);
  const at = (share: number) => waits[Math.floor(share * (waits.length - 1))]!.toFixed(1);
  const health = (await (await fetch(new URL('/health', url))).json()) as { loopDelayP99: number };
  const steps = (await Promise.all(ids.map((id) => get(`/${id}`)))).map(({ step }) => step);
  console.log(`${waits.length} requests: median ${at(0.5)} ms, p99 ${at(0.99)} ms`);
  console.log(`${events} events to ${values.listeners} listeners`);
  console.log(`steps of the trainings: ${steps.join(', ')}`);
  console.log(`event loop of the server: p99 ${health.loopDelayP99.toFixed(1)} ms`);
  server.kill('SIGTERM');
  await ended;
  rmSync(folder, { recursive: true });
}

void main();
