import { type ChildProcess, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';

/**
 * A peer's introduction of itself. `threads` are the numbers of threads that it can be told to use, all if absent. On
 * more than `mostElements` elements it takes minutes.
 */
interface Introduction {
  name: string;
  tasks: string[];
  threads?: number[];
  mostElements?: number;
}

/**
 * Makes a peer keep the large blocks that it frees. glibc would give them back to the system. To fetch the pages of the
 * next result anew can take longer than its product, on a virtual machine at least.
 */
const KEEP_MEMORY = { MALLOC_MMAP_THRESHOLD_: String(2 ** 25), MALLOC_TRIM_THRESHOLD_: String(2 ** 32) };

/** A process that answers each line of request with the milliseconds of each repeat. */
export class Peer<Request> {
  private constructor(
    readonly introduction: Introduction,
    private readonly child: ChildProcess,
    private readonly lines: AsyncIterator<string>,
  ) {}

  /** Starts a peer, or returns the reason why there is none. */
  static async start<Request>(command: string, args: string[]): Promise<Peer<Request> | string> {
    const child = spawn(command, args, { stdio: ['pipe', 'pipe', 'pipe'], env: { ...process.env, ...KEEP_MEMORY } });
    let complaint = '';
    child.on('error', (error) => (complaint = error.message));
    child.stderr.on('data', (chunk: Buffer) => (complaint += chunk.toString()));
    const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
    const first = await lines.next();
    if (first.done !== true) return new Peer<Request>(JSON.parse(first.value) as Introduction, child, lines);
    return complaint.trim().split('\n').at(-1) ?? 'it ended at once';
  }

  async measure(request: Request): Promise<number[]> {
    this.child.stdin!.write(`${JSON.stringify(request)}\n`);
    const line = await this.lines.next();
    if (line.done === true) throw new Error(`${this.introduction.name} ended during ${JSON.stringify(request)}`);
    return JSON.parse(line.value) as number[];
  }

  stop(): void {
    this.child.stdin!.end();
  }
}
