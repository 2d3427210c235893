// `npx tsx scripts/cuda-report.ts` prints what nvcc makes of the CUDA kernels, per architecture, as tables in Markdown.
// It needs no GPU. Its status is 1 where a product spills or uses local memory, or where a product of 16-bit elements
// lacks mma.sync, 16-byte cp.async or ldmatrix. Its status is 2 where this cannot be told.
import { execFile } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { promisify } from 'node:util';

const root = join(__dirname, '..');
// The flags of CMakeLists.txt and of its Release, without those of the host's compiler and of the archive.
const flags = ['-O3', '-DNDEBUG', '-std=c++20', '--fmad=false'];

/**
 * Limits of a multiprocessor from CUDA's cuda_occupancy.h: bytes of shared memory, warps and blocks. Every
 * multiprocessor has 65536 registers.
 */
const limits: Readonly<Record<string, { shared: number; warps: number; blocks: number }>> = {
  '80': { shared: 164 << 10, warps: 64, blocks: 32 },
  '86': { shared: 100 << 10, warps: 48, blocks: 16 },
  '89': { shared: 100 << 10, warps: 48, blocks: 24 },
  '90a': { shared: 228 << 10, warps: 64, blocks: 32 },
  '100': { shared: 228 << 10, warps: 64, blocks: 32 },
};
const RESERVED = 1024; // bytes of shared memory of every block

const patterns = {
  'mma.sync': /\bmma\.sync\b/g,
  '16-byte cp.async': /\bcp\.async\.c[ag]\.shared\.global\b[^;]*\], 16\b/g,
  ldmatrix: /\bldmatrix\b/g,
  '16-byte loads': /\bld\.(?!shared|local|param)([\w:]+\.)*(v4\.[bfsu]32|v2\.[bfsu]64|b128)\b/g,
  '16-byte stores': /\bst\.(?!shared|local|param)([\w:]+\.)*(v4\.[bfsu]32|v2\.[bfsu]64|b128)\b/g,
};
type Instruction = keyof typeof patterns;
const ofTensorCores: readonly Instruction[] = ['mma.sync', '16-byte cp.async', 'ldmatrix'];

interface Usage {
  architecture: string;
  registers: number;
  local: number; // bytes per thread
  spills: number; // bytes of stores and loads
  shared: number; // bytes per block, static and dynamic
  counts: Record<Instruction, number>;
}

/** A kernel by name, with its usages in the order of the architectures. */
type Kernel = [name: string, usages: Usage[]];

async function main(): Promise<void> {
  const [version] = /release .*/.exec(await nvcc(['--version'])) ?? [''];
  const architectures = await findArchitectures();
  const kernels = await compileAll(architectures);
  const products = kernels.filter(([name]) => name.startsWith('gemm_'));
  const passes = kernels.filter(([name]) => !name.startsWith('gemm_') && name !== 'nothing');

  console.log(`nvcc ${version}, \`${flags.join(' ')}\`\n\n### Products\n`);
  print(architectures, products, ofTensorCores);
  console.log('\n### Passes\n');
  print(architectures, passes, ['16-byte loads', '16-byte stores']);
  const local = kernels.flatMap(localMemory);
  console.log(
    local.length === 0 ? '\nNo kernel spills or uses local memory.' : `\nNot in registers alone: ${local.join('; ')}.`,
  );
  const faults =
    products.length === 0
      ? ['There are no products']
      : [...products.flatMap(localMemory), ...products.flatMap(missing)];
  for (const fault of faults) console.error(fault);
  if (faults.length > 0) process.exitCode = 1;
}

async function nvcc(args: readonly string[]): Promise<string> {
  const { stdout, stderr } = await promisify(execFile)('nvcc', args, { maxBuffer: 1 << 26 });
  return stdout + stderr;
}

/** Returns the architectures of CMakeLists.txt that the toolkit knows. */
async function findArchitectures(): Promise<string[]> {
  const wanted =
    /foreach\(architecture ([\da-z ]+)\)/.exec(readFileSync(join(root, 'CMakeLists.txt'), 'utf8'))?.[1]?.split(' ') ??
    [];
  const known = (await nvcc(['--list-gpu-code'])).split(/\s+/);
  const found = wanted.filter((one) => known.includes(`sm_${one.replace('a', '')}`));
  if (found.length === 0 || !found.every((one) => one in limits)) {
    throw new Error(
      'Expected CMakeLists.txt to name architectures that nvcc and scripts/cuda-report.ts know, ' +
        `got ${wanted.join(' ')}`,
    );
  }
  return found;
}

async function compileAll(architectures: readonly string[]): Promise<Kernel[]> {
  const { cuda } = JSON.parse(readFileSync(join(root, 'native/sources.json'), 'utf8')) as { cuda: string[] };
  const jobs = cuda.flatMap((source) => architectures.map((architecture) => ({ source, architecture })));
  const found = new Map<string, Usage[]>();
  const folder = mkdtempSync(join(tmpdir(), 'cuda-report-'));
  const work = async () => {
    for (let job = jobs.shift(); job !== undefined; job = jobs.shift()) {
      for (const [name, usage] of await compile(job.source, job.architecture, folder)) {
        found.set(name, [...(found.get(name) ?? []), usage]);
      }
    }
  };
  const workers = Array.from({ length: Math.min(2, availableParallelism()) }, work);
  try {
    await Promise.all(workers);
  } finally {
    jobs.length = 0;
    await Promise.allSettled(workers);
    rmSync(folder, { recursive: true });
  }
  for (const usages of found.values()) {
    usages.sort((a, b) => architectures.indexOf(a.architecture) - architectures.indexOf(b.architecture));
  }
  return [...found].sort(([a], [b]) => (a < b ? -1 : 1));
}

/** Compiles a source. ptxas reports registers and memory; instructions are counted in the PTX that ptxas was given. */
async function compile(source: string, architecture: string, folder: string): Promise<[name: string, usage: Usage][]> {
  const stem = basename(source, '.cu');
  const kept = join(folder, `${stem}.${architecture}`);
  mkdirSync(kept);
  const code = `--generate-code=arch=compute_${architecture},code=sm_${architecture}`;
  const log = await nvcc([
    ...flags,
    code,
    '-Xptxas=-v',
    '--keep',
    '--keep-dir',
    kept,
    '-cubin',
    '-o',
    join(kept, 'out.cubin'),
    join(root, source),
  ]);
  const ptx = readFileSync(join(kept, `${stem}.ptx`), 'utf8');
  return log
    .split("Compiling entry function '")
    .slice(1)
    .map((text) => {
      const mangled = /^[\w$]*/.exec(text)![0];
      const body = ptx.split(`.entry ${mangled}(`)[1]?.split(/^}/m)[0];
      const figures =
        /(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads[^]*?Used (\d+) registers(?:.*?(\d+) bytes smem)?/.exec(
          text,
        );
      if (body === undefined || figures === null) {
        throw new Error(`Expected PTX of ${mangled}, and the figures of ptxas -v in: ${text}`);
      }
      const figure = (index: number) => Number(figures[index] ?? 0);
      const name = readable(mangled);
      const counts = Object.fromEntries(
        Object.entries(patterns).map(([key, pattern]) => [key, body.match(pattern)?.length ?? 0]),
      ) as Usage['counts'];
      const shared = figure(5) + launchOf(name).dynamicShared;
      return [
        name,
        { architecture, registers: figure(4), local: figure(1), spills: figure(2) + figure(3), shared, counts },
      ];
    });
}

/** Turns a mangled name into one such as `gemm_tensor<half, rows_by_rows, symmetric, 128>`. */
function readable(mangled: string): string {
  let [name, rest] = ['', mangled.replace(/^_ZN?/, '')];
  while (/^\d/.test(rest)) {
    const length = parseInt(rest);
    rest = rest.slice(String(length).length);
    [name, rest] = [rest.slice(0, length), rest.slice(length)];
  }
  if (!rest.startsWith('I')) return name;
  const found =
    /^I(f|6__half|13__nv_bfloat16|NS\d*_6MatrixE|NS\d*_7MomentsE)?(?:LNS\d*_\d+(Contraction|Factors)E(\d)E)?(?:Lb([01])E)?(?:Li(\d+)E)?E/.exec(
      rest,
    );
  if (found === null) throw new Error(`Expected scripts/cuda-report.ts to know the template arguments of ${mangled}`);
  const [, type, enumeration, value, symmetric, tile] = found;
  const types: Readonly<Record<string, string>> = { f: 'float', '6__half': 'half', '13__nv_bfloat16': 'bfloat16' };
  const parts = [
    types[type ?? ''] ?? /Matrix|Moments/.exec(type ?? '')?.[0],
    enumeration === undefined ? undefined : namesOf(enumeration)[Number(value)],
    ['general', 'symmetric'][Number(symmetric)],
    tile,
  ];
  return `${name}<${parts.filter((part) => part !== undefined).join(', ')}>`;
}

/** The text of all files in cuda/. The constants and launches are read from it. */
const sources = readdirSync(join(root, 'cuda'))
  .map((file) => readFileSync(join(root, 'cuda', file), 'utf8'))
  .join('\n');

/** The names, in order, of an enumeration that kernels take as a template argument. */
function namesOf(enumeration: string): string[] {
  const list = new RegExp(`enum class ${enumeration} \\{([^}]*)\\}`).exec(sources)![1]!;
  return list.replace(/\/\/.*/g, '').match(/\w+/g)!;
}

/** The value of a number, of a constant of the sources, or of a product of these. kTile is that of the kernel. */
function valueOf(expression: string, tile: number): number {
  const factors = expression.split('*').map((text) => {
    const name = text.trim().replace('<kTile>', '');
    if (name === 'kTile') return tile;
    if (/^\d+$/.test(name)) return Number(name);
    const [, definition] = new RegExp(`constexpr \\w+ ${name}(?:<kTile>)? = ([^;]*);`).exec(sources) ?? [];
    if (definition === undefined) throw new Error(`Expected cuda/ to define ${name}`);
    return valueOf(definition, tile);
  });
  return factors.reduce((product, factor) => product * factor, 1);
}

/** The arguments of every call of a function, as they are written in the sources. */
function callsOf(name: string): string[][] {
  return [...sources.matchAll(new RegExp(`\\b${name}\\(`, 'g'))].map(({ index, 0: start }) => {
    const args = [''];
    let depth = 0;
    for (let at = index + start.length; depth > 0 || sources[at] !== ')'; at++) {
      const letter = sources[at];
      if (letter === undefined) throw new Error(`Expected the brackets of a call of ${name} in cuda/ to match`);
      if ('([{<'.includes(letter)) depth++;
      if (')]}'.includes(letter) || (letter === '>' && sources[at - 1] !== '-')) depth--;
      if (letter === ',' && depth === 0) args.push('');
      else args.push(`${args.pop() ?? ''}${letter}`);
    }
    return args.map((arg) => arg.trim());
  });
}

/** The threads and the bytes of dynamic shared memory of every launch, by the kernel's name. */
const launches = new Map([
  ...callsOf('launch').map(
    ([, kernel, , threads, shared]) => [kernel?.replace(/<.*/s, ''), { threads, shared }] as const,
  ),
  ...callsOf('launch_tiles').map(([kernel = '', , threads, shared]) => {
    const alias = /^\w+$/.test(kernel) ? new RegExp(`const auto ${kernel} = (\\w+)<`).exec(sources)?.[1] : undefined;
    return [alias ?? kernel.replace(/<.*/s, ''), { threads, shared }] as const;
  }),
]);

/** Returns the threads and the dynamic shared memory that cuda/ launches a kernel with. */
function launchOf(name: string): { threads: number; dynamicShared: number } {
  const kernel = name.replace(/<.*/, '');
  if (kernel === 'nothing') return { threads: 1, dynamicShared: 0 }; // this kernel is never launched
  const { threads, shared } = launches.get(kernel) ?? {};
  if (threads === undefined || shared === undefined) throw new Error(`Expected cuda/ to launch ${kernel}`);
  const tile = Number(/ (\d+)>$/.exec(name)?.[1] ?? 0);
  return { threads: valueOf(threads, tile), dynamicShared: valueOf(shared, tile) };
}

function localMemory([name, usages]: Kernel): string[] {
  return usages
    .filter(({ local, spills }) => local + spills > 0)
    .map(
      ({ architecture, local, spills }) =>
        `\`${name}\` on sm_${architecture}: ${local} bytes of local memory a thread, ` +
        `${spills} of spill stores and loads`,
    );
}

function missing([name, usages]: Kernel): string[] {
  if (!name.startsWith('gemm_tensor')) return [];
  return usages.flatMap(({ architecture, counts }) =>
    ofTensorCores.filter((one) => counts[one] === 0).map((one) => `\`${name}\` on sm_${architecture}: no ${one}`),
  );
}

/**
 * Returns the number of blocks that a multiprocessor holds at once, and what limits it: registers, shared memory, warps
 * or blocks.
 */
function occupancy(name: string, { architecture, registers, shared }: Usage): string {
  const most = limits[architecture]!;
  const warps = Math.ceil(launchOf(name).threads / 32);
  const bounds = {
    // A warp takes registers 256 at a time, from those of the quarter of the multiprocessor that it runs on.
    R: Math.floor((4 * Math.floor(16384 / (256 * Math.ceil(registers / 8)))) / warps),
    S: Math.floor(most.shared / (128 * Math.ceil((shared + RESERVED) / 128))),
    W: Math.floor(most.warps / warps),
    B: most.blocks,
  };
  const blocks = Math.min(...Object.values(bounds));
  return `${blocks} ${Object.keys(bounds)
    .filter((letter) => bounds[letter as keyof typeof bounds] === blocks)
    .join('')}`;
}

function print(
  architectures: readonly string[],
  kernels: readonly Kernel[],
  instructions: readonly Instruction[],
): void {
  const head = ['kernel', ...architectures.map((one) => `sm_${one}`), ...instructions];
  console.log(`| ${head.join(' | ')} |\n|${head.map(() => '---|').join('')}`);
  for (const [name, usages] of kernels) {
    const cells = usages.map((usage) => `${usage.registers} / ${occupancy(name, usage)}`);
    for (const one of instructions) {
      const figures = usages.map(({ counts }) => counts[one]);
      cells.push(new Set(figures).size === 1 ? String(figures[0]) : figures.join(' '));
    }
    console.log(`| \`${name}\` | ${cells.join(' | ')} |`);
  }
}

main().catch((error: unknown) => {
  const { message } = error as Error;
  console.error(message === 'spawn nvcc ENOENT' ? 'Expected nvcc, of the CUDA toolkit, on the PATH' : message);
  process.exitCode = 2;
});
