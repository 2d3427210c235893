// A server that trains: a queue, progress as server-sent events, cancel and resume.
//
//   npm run example -- examples/server.ts --port 8080 --parallel 2
//   curl -X POST localhost:8080/trainings -d '{ "steps": 200, "lr": 0.02 }'
//   curl localhost:8080/trainings/1/events
//   curl -X DELETE localhost:8080/trainings/1          # ends after the step, and leaves a checkpoint
//   curl -X POST localhost:8080/trainings/1/resume
import { type ChildProcess, fork } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import path from 'node:path';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { parseArgs } from 'node:util';
import type { News, Order } from './server-training.js';

const { values } = parseArgs({
  options: {
    port: { type: 'string', default: '8080' },
    parallel: { type: 'string', default: '2' },
    folder: { type: 'string', default: 'runs/server' },
  },
});
const parallel = Number(values.parallel);
mkdirSync(values.folder, { recursive: true });

interface Training {
  readonly id: number;
  readonly order: Order;
  state: 'queued' | 'running' | 'cancelled' | 'done' | 'failed';
  step: number;
  loss: number | null;
  accuracy: number | null;
  error: string | null;
  process: ChildProcess | undefined;
  readonly listeners: Set<ServerResponse>;
}

const trainings = new Map<number, Training>();
const delay = monitorEventLoopDelay({ resolution: 1 });
delay.enable();

/** An error of the client's, with the status to answer. */
class Refusal extends Error {
  readonly status: number;

  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

function describe({ id, order, state, step, loss, accuracy, error }: Training): object {
  const { steps, lr } = order;
  return { id, state, step, steps, lr, loss, accuracy, error };
}

/** Starts as many of the queued trainings as may run at once. */
function startQueued(): void {
  for (const training of trainings.values()) {
    const running = [...trainings.values()].filter((one) => one.state === 'running').length;
    if (running >= parallel) return;
    // One that is to resume may have a process that has not ended yet.
    if (training.state === 'queued' && training.process === undefined) start(training);
  }
}

function start(training: Training): void {
  training.state = 'running';
  const child = fork(path.join(__dirname, 'server-training.ts'), { execArgv: ['--import', 'tsx'] });
  training.process = child;
  child.on('message', (news: News) => {
    if (news.kind === 'step') [training.step, training.loss] = [news.step, news.loss];
    if (news.kind === 'end') {
      training.state = news.ended === 'signal' ? 'cancelled' : 'done';
      training.accuracy = news.accuracy;
    }
    if (news.kind === 'error') [training.state, training.error] = ['failed', news.message];
    publish(training);
  });
  child.once('exit', (code, signal) => {
    if (training.state === 'running') {
      [training.state, training.error] = ['failed', `the process ended with ${signal ?? code}`];
      publish(training);
    }
    training.process = undefined;
    if (training.state !== 'queued') for (const listener of training.listeners) listener.end();
    startQueued();
  });
  child.send(training.order);
}

function publish(training: Training): void {
  const event = `data: ${JSON.stringify(describe(training))}\n\n`;
  for (const listener of training.listeners) listener.write(event);
}

function cancel(training: Training): void {
  if (training.state === 'queued') training.state = 'cancelled';
  else if (training.state === 'running') training.process?.send('cancel');
  else throw new Refusal(409, `training ${training.id} is ${training.state}`);
}

async function answer(request: IncomingMessage, response: ServerResponse): Promise<object | undefined> {
  const [root, id, action] = (request.url ?? '/').split('?')[0]!.split('/').slice(1);
  if (root === 'health' && request.method === 'GET') {
    return { trainings: trainings.size, loopDelayP99: delay.percentile(99) / 1e6 - 1 };
  }
  if (root !== 'trainings') throw new Refusal(404, 'expected /trainings or /health');
  if (id === undefined) {
    if (request.method === 'GET') return [...trainings.values()].map(describe);
    if (request.method !== 'POST') throw new Refusal(405, 'expected GET or POST');
    return describe(await enqueue(request));
  }
  const training = trainings.get(Number(id));
  if (training === undefined) throw new Refusal(404, `there is no training ${id}`);
  switch (`${request.method} ${action ?? ''}`) {
    case 'GET ':
      return describe(training);
    case 'DELETE ':
      cancel(training);
      return describe(training);
    case 'POST resume':
      if (training.state !== 'cancelled' && training.state !== 'failed') {
        throw new Refusal(409, `training ${id} is ${training.state}`);
      }
      training.state = 'queued';
      training.error = null;
      startQueued();
      return describe(training);
    case 'GET events':
      response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' });
      response.write(`data: ${JSON.stringify(describe(training))}\n\n`);
      if (training.state !== 'queued' && training.process === undefined) response.end();
      else training.listeners.add(response);
      request.on('close', () => training.listeners.delete(response));
      return undefined;
    default:
      throw new Refusal(405, 'expected GET, DELETE, POST …/resume or GET …/events');
  }
}

async function enqueue(request: IncomingMessage): Promise<Training> {
  let text = '';
  for await (const chunk of request) {
    text += String(chunk);
    if (text.length > 10_000) throw new Refusal(413, 'expected at most 10 kB');
  }
  let given: { steps?: unknown; lr?: unknown };
  try {
    given = JSON.parse(text === '' ? '{}' : text) as typeof given;
  } catch {
    throw new Refusal(400, 'expected JSON');
  }
  const { steps = 200, lr = 0.02 } = given;
  if (!Number.isInteger(steps) || (steps as number) < 1 || (steps as number) > 100_000) {
    throw new Refusal(400, 'expected steps to be an integer from 1 to 100000');
  }
  if (typeof lr !== 'number' || !(lr > 0 && lr < 10)) throw new Refusal(400, 'expected lr to be in (0, 10)');
  const id = trainings.size + 1;
  const file = path.join(values.folder, `${process.pid}-${id}.safetensors`);
  const training: Training = {
    ...{ id, order: { steps: steps as number, lr, path: file }, state: 'queued', step: 0, loss: null, accuracy: null },
    ...{ error: null, process: undefined, listeners: new Set() },
  };
  trainings.set(id, training);
  startQueued();
  return training;
}

const server = createServer((request, response) => {
  const send = (status: number, body: object) => {
    response.writeHead(status, { 'content-type': 'application/json' }).end(`${JSON.stringify(body)}\n`);
  };
  answer(request, response).then(
    (body) => {
      if (body !== undefined) send(request.method === 'POST' ? 201 : 200, body);
    },
    (error: unknown) => {
      if (error instanceof Refusal) send(error.status, { error: error.message });
      else send(500, { error: String(error) });
    },
  );
});

// Trainings end after their step and leave checkpoints; then the process has nothing left to do.
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, () => {
    server.close();
    server.closeAllConnections();
    for (const training of trainings.values()) {
      if (training.state === 'queued') training.state = 'cancelled';
      training.process?.disconnect();
    }
  });
}
server.listen(Number(values.port), '127.0.0.1', () => {
  const address = server.address();
  console.log(`http://127.0.0.1:${typeof address === 'object' ? address?.port : values.port}/trainings`);
});
