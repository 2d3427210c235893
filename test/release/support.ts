import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';

export const root = path.join(__dirname, '..', '..');
/** The folder that `node scripts/release.mjs` has left its tarballs in. */
const folder = path.resolve(root, process.env['ROOT_OPTIMIZER_RELEASE'] ?? 'release');

interface Manifest {
  readonly name: string;
  readonly version: string;
  readonly optionalDependencies?: Readonly<Record<string, string>>;
}

export interface Tarball {
  readonly file: string;
  readonly manifest: Manifest;
}

export interface Result {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a program without an addon of the environment's, and returns how it ended. */
export function run(program: string, args: readonly string[], cwd: string, env: NodeJS.ProcessEnv = {}) {
  const { ROOT_OPTIMIZER_ADDON: _, NODE_OPTIONS: __, ...inherited } = process.env;
  return new Promise<Result>((resolve) => {
    execFile(program, args, { cwd, env: { ...inherited, ...env }, maxBuffer: 1 << 26 }, (error, stdout, stderr) => {
      resolve({ status: error === null ? 0 : typeof error.code === 'number' ? error.code : -1, stdout, stderr });
    });
  });
}

/** Like `run`, for a program that has to succeed. Returns what it printed. */
export async function succeed(program: string, args: readonly string[], cwd: string, env?: NodeJS.ProcessEnv) {
  const { status, stdout, stderr } = await run(program, args, cwd, env);
  if (status !== 0) throw new Error(`${program} ${args.join(' ')} ended with ${status}\n${stdout}\n${stderr}`);
  return stdout;
}

export async function readTarballs(): Promise<Tarball[]> {
  const files = readdirSync(folder).filter((file) => file.endsWith('.tgz'));
  return Promise.all(
    files.map(async (name) => {
      const file = path.join(folder, name);
      const text = await succeed('tar', ['-xzOf', file, 'package/package.json'], folder);
      return { file, manifest: JSON.parse(text) as Manifest };
    }),
  );
}

/**
 * A registry on loopback that has these tarballs and, of the packages for other platforms, what npm asks for before it
 * passes them over.
 */
export async function serve(tarballs: readonly Tarball[]): Promise<{ server: Server; url: string }> {
  const { optionalDependencies = {} } = tarballs.find(({ manifest }) => manifest.name === 'root-optimizer')!.manifest;
  const others = Object.entries(optionalDependencies).map(([name, version]): Tarball => {
    const [os, cpu] = name.split('/')[1]!.split('-');
    const libc = name.endsWith('-musl') ? { libc: ['musl'] } : {};
    const manifest = { name, version, os: [os], cpu: [cpu], ...libc };
    return { file: `${name.replace('/', '-')}.tgz`, manifest };
  });
  const server = createServer((request, response) => {
    const asked = decodeURIComponent(request.url ?? '/').slice(1);
    const tarball = tarballs.find(({ file }) => asked === path.basename(file));
    const described = [...tarballs, ...others].find(({ manifest }) => asked === manifest.name);
    if (tarball !== undefined) {
      response.end(readFileSync(tarball.file));
    } else if (described !== undefined) {
      response.setHeader('content-type', 'application/json');
      response.end(JSON.stringify(packument(described)));
    } else {
      response.writeHead(404).end('{}');
    }
  });
  const packument = ({ file, manifest }: Tarball) => {
    const bytes = existsSync(file) ? readFileSync(file) : '';
    const integrity = `sha512-${createHash('sha512').update(bytes).digest('base64')}`;
    const dist = { tarball: `${url()}/${path.basename(file)}`, integrity };
    const { name, version } = manifest;
    return { name, 'dist-tags': { latest: version }, versions: { [version]: { ...manifest, dist } } };
  };
  const url = () => `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return { server, url: url() };
}

/** An empty project, whose npm finds our platform packages at `registry`. */
export function makeProject(registry: string): string {
  const project = mkdtempSync(path.join(tmpdir(), 'root-optimizer-'));
  write(project, 'package.json', '{ "private": true }');
  write(project, '.npmrc', `@root-optimizer:registry=${registry}\naudit=false\nfund=false\n`);
  return project;
}

export function write(project: string, file: string, text: string): void {
  mkdirSync(path.dirname(path.join(project, file)), { recursive: true });
  writeFileSync(path.join(project, file), text);
}
