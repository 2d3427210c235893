// `npx tsx scripts/cuda-report.ts` prints what nvcc makes of the CUDA kernels, per architecture, as tables in Markdown,
// and what their counts say about speed. It needs no GPU. Its status is 1 where a product spills or uses local memory,
// where a product of 16-bit elements lacks the instructions that it is there for, or where the model of time misses its
// goals. Its status is 2 where this cannot be told.
import { execFile } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { promisify } from 'node:util';
import { addon } from '../lib/binding.js';
import { newtonSchulzCoefficients } from '../lib/index.js';
import { plainFlops } from './common/numbers.js';
import { markdownHead, markdownRow } from './common/tables.js';
import { cards, printTraffic } from './cuda-report/traffic.js';

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
  wgmma: /\bwgmma\.mma_async\b/g,
  'bulk copies': /\bcp\.async\.bulk\.tensor\b/g,
  '16-byte loads': /\bld\.(?!shared|local|param)([\w:]+\.)*(v4\.[bfsu]32|v2\.[bfsu]64|b128)\b/g,
  '16-byte stores': /\bst\.(?!shared|local|param)([\w:]+\.)*(v4\.[bfsu]32|v2\.[bfsu]64|b128)\b/g,
};
type Instruction = keyof typeof patterns;
const ofProducts: readonly Instruction[] = ['mma.sync', '16-byte cp.async', 'ldmatrix', 'wgmma', 'bulk copies'];
/** What the products of 16-bit elements need, by kernel. wgmma exists on sm_90a alone. */
const needed: Readonly<Record<string, { on: RegExp; instructions: readonly Instruction[] }>> = {
  gemm_tensor: { on: /./, instructions: ['mma.sync', '16-byte cp.async', 'ldmatrix'] },
  newton_schulz_small: { on: /./, instructions: ['mma.sync', '16-byte cp.async', 'ldmatrix'] },
  gemm_hopper: { on: /^90a$/, instructions: ['wgmma', 'bulk copies'] },
};

const isProduct = /^(gemm|newton_schulz)_/;

interface Usage {
  architecture: string;
  registers: number;
  local: number; // bytes per thread
  spills: number; // bytes of stores and loads
  shared: number; // bytes per block, static and dynamic
  threads: number; // per block
  counts: Record<Instruction, number>;
}

/** A kernel by name, with its usages in the order of the architectures. */
type Kernel = [name: string, usages: Usage[]];

async function main(): Promise<void> {
  const [version] = /release .*/.exec(await nvcc(['--version'])) ?? [''];
  const architectures = await findArchitectures();
  const kernels = await compileAll(architectures);
  const products = kernels.filter(([name]) => isProduct.test(name));
  const passes = kernels.filter(([name]) => !isProduct.test(name) && name !== 'nothing');

  console.log(`nvcc ${version}, \`${flags.join(' ')}\`\n\n### Products\n`);
  print(architectures, products, ofProducts);
  console.log('\n### Passes\n');
  print(architectures, passes, ['16-byte loads', '16-byte stores']);
  const local = kernels.flatMap(localMemory);
  console.log(
    local.length === 0 ? '\nNo kernel spills or uses local memory.' : `\nNot in registers alone: ${local.join('; ')}.`,
  );
  console.log('\n### Tiles\n');
  printTiles(architectures, kernels);
  console.log('\n### Time of the products, by count\n');
  const slow = [...printTimes(), ...(await printTraffic())];
  const faults =
    products.length === 0
      ? ['There are no products']
      : [...products.flatMap(localMemory), ...products.flatMap(missing), ...slow];
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

/** A tile of products, as cuda/ defines it. */
interface Tile {
  rows: number;
  columns: number;
  depth: number;
  /** Rows and columns of what a warp, or with wgmma an instruction, multiplies from shared memory at once. */
  down: number;
  across: number;
  threads: number;
  shared: number; // bytes of dynamic shared memory
}

/** The tiles by their names in kernels. Filled by `readTiles`. */
const tiles = new Map<string, Tile>();

/** Asks the compiler for the constants of tiles, by a program that prints them. */
async function readTiles(names: readonly string[], folder: string): Promise<void> {
  const fields = (name: string) =>
    name.startsWith('Hopper')
      ? ['kRows', 'kColumns', 'kDepth', '64', 'kColumns', 'kThreads', 'kSharedBytes']
      : name.startsWith('Float32')
        ? ['kSide', 'kSide', 'kDepth', '4', '4', 'kThreads', '0']
        : name.startsWith('Small')
          ? ['kSide', 'kSide', 'kLength', '16', '16', 'kThreads', 'kSharedBytes']
          : ['kSide', 'kSide', 'kDepth', 'kWarp', 'kWarp', 'kThreads', 'kSharedBytes'];
  const prints = names.map((name) => {
    const values = fields(name).map((field) => (/^\d+$/.test(field) ? field : `${name}::${field}`));
    return `std::printf("%d %d %d %d %d %d %d\\n", ${values.join(', ')});`;
  });
  const [source, program] = [join(folder, 'tiles.cu'), join(folder, 'tiles')];
  writeFileSync(
    source,
    `#include <cstdio>\n#include "${join(root, 'cuda/gemm_hopper.cuh')}"
#include "${join(root, 'cuda/gemm_tensor.cuh')}"
#include "${join(root, 'cuda/gemm_float32.cuh')}"
#include "${join(root, 'cuda/newton_schulz.cuh')}"
     using namespace root_optimizer::cuda;\nint main() { ${prints.join('\n')} }\n`,
  );
  await nvcc([...flags, '-arch=sm_80', '-o', program, source]);
  const { stdout } = await promisify(execFile)(program);
  stdout
    .trim()
    .split('\n')
    .forEach((line, i) => {
      const [rows = 0, columns = 0, depth = 0, down = 0, across = 0, threads = 0, shared = 0] = line
        .split(' ')
        .map(Number);
      tiles.set(names[i]!, { rows, columns, depth, down, across, threads, shared });
    });
}

async function compileAll(architectures: readonly string[]): Promise<Kernel[]> {
  const { cuda } = JSON.parse(readFileSync(join(root, 'native/sources.json'), 'utf8')) as { cuda: string[] };
  const jobs = cuda.flatMap((source) => architectures.map((architecture) => ({ source, architecture })));
  const found = new Map<string, Usage[]>();
  const folder = mkdtempSync(join(tmpdir(), 'cuda-report-'));
  const named = [...sources.matchAll(/\b((?:Hopper|Tensor|Float32)Tile<[\d, ]+>)/g)].map(([, name]) => name!);
  named.push(...[64, 128].flatMap((side) => [`SmallTile<${side}, 0>`, `SmallTile<${side}, 1>`]));
  const work = async () => {
    for (let job = jobs.shift(); job !== undefined; job = jobs.shift()) {
      for (const [name, usage] of await compile(job.source, job.architecture, folder)) {
        found.set(name, [...(found.get(name) ?? []), usage]);
      }
    }
  };
  let workers: Promise<void>[] = [];
  try {
    await readTiles([...new Set(named)], folder);
    workers = Array.from({ length: Math.min(2, availableParallelism()) }, work);
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
      const body = ptx.split(`.entry ${mangled}(`)[1]?.split(/^\.(?:visible|weak) |\.entry /m)[0];
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
      const { threads, dynamicShared } = launchOf(name);
      const shared = figure(5) + dynamicShared;
      const [registers, local, spills] = [figure(4), figure(1), figure(2) + figure(3)];
      return [name, { architecture, registers, local, spills, shared, threads, counts }];
    });
}

/** Turns a mangled name into one such as `gemm_tensor<half, rows_by_rows, symmetric, TensorTile<128, 32, 4>>`. */
function readable(mangled: string): string {
  let [name, rest] = ['', mangled.replace(/^_ZN?/, '')];
  while (/^\d/.test(rest)) {
    const length = parseInt(rest);
    rest = rest.slice(String(length).length);
    [name, rest] = [rest.slice(0, length), rest.slice(length)];
  }
  if (!rest.startsWith('I')) return name;
  const found =
    /^I(f|6__half|13__nv_bfloat16|NS\d*_6MatrixE|NS\d*_7MomentsE)?(?:LNS\d*_\d+(Contraction|Factors)E(\d)E)?(?:Lb([01])E)?(?:NS\d*_\d+(\w+Tile)I((?:L[ib]\d+E)+)EE)?E/.exec(
      rest,
    );
  if (found === null) throw new Error(`Expected scripts/cuda-report.ts to know the template arguments of ${mangled}`);
  const [, type, enumeration, value, symmetric, tile, numbers] = found;
  const types: Readonly<Record<string, string>> = { f: 'float', '6__half': 'half', '13__nv_bfloat16': 'bfloat16' };
  const parts = [
    types[type ?? ''] ?? /Matrix|Moments/.exec(type ?? '')?.[0],
    enumeration === undefined ? undefined : namesOf(enumeration)[Number(value)],
    ['general', 'symmetric'][Number(symmetric)],
    tile === undefined ? undefined : `${tile}<${numbers!.match(/\d+/g)!.join(', ')}>`,
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

/** The value of a number, of a constant of the sources, or of a product of these. */
function valueOf(expression: string): number {
  const factors = expression.split('*').map((text) => {
    const name = text.trim();
    if (/^\d+$/.test(name)) return Number(name);
    const [, definition] = new RegExp(`constexpr \\w+ ${name} = ([^;]*);`).exec(sources) ?? [];
    if (definition === undefined) throw new Error(`Expected cuda/ to define ${name}`);
    return valueOf(definition);
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
const launches = new Map(
  callsOf('launch').map(([, kernel, , threads, shared]) => [kernel?.replace(/<.*/s, ''), { threads, shared }] as const),
);

/** Returns the threads and the dynamic shared memory that cuda/ launches a kernel with. */
function launchOf(name: string): { threads: number; dynamicShared: number } {
  const [, kernel = '', tile] = /^(\w+)(?:<.*?(\w+Tile<.*>)>)?/.exec(name) ?? [];
  if (kernel === 'nothing') return { threads: 1, dynamicShared: 0 }; // this kernel is never launched
  if (tile !== undefined) {
    const { threads, shared } = tiles.get(tile)!;
    return { threads, dynamicShared: shared };
  }
  const { threads, shared } = launches.get(kernel) ?? {};
  if (threads === undefined || shared === undefined) throw new Error(`Expected cuda/ to launch ${kernel}`);
  return { threads: valueOf(threads), dynamicShared: valueOf(shared) };
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
  const { on, instructions } = needed[name.replace(/<.*/, '')] ?? { on: /(?!)/, instructions: [] };
  return usages
    .filter(({ architecture }) => on.test(architecture))
    .flatMap(({ architecture, counts }) =>
      instructions.filter((one) => counts[one] === 0).map((one) => `\`${name}\` on sm_${architecture}: no ${one}`),
    );
}

/**
 * Returns the number of blocks that a multiprocessor holds at once, and what limits it: registers, shared memory, warps
 * or blocks.
 */
function occupancy({ architecture, registers, shared, threads }: Usage): string {
  const most = limits[architecture]!;
  const warps = Math.ceil(threads / 32);
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
    const cells = usages.map((usage) => `${usage.registers} / ${occupancy(usage)}`);
    for (const one of instructions) {
      const figures = usages.map(({ counts }) => counts[one]);
      cells.push(new Set(figures).size === 1 ? String(figures[0]) : figures.join(' '));
    }
    console.log(`| \`${name}\` | ${cells.join(' | ')} |`);
  }
}

/**
 * FLOP of 16-bit products with float32 sums that a multiprocessor does in a clock, from NVIDIA's white papers.
 * Its limit of power can bind before.
 */
const tensorFlops: Readonly<Record<string, number>> = { '80': 2048, '86': 512, '89': 512, '90a': 4096, '100': 8192 };
const SHARED_BYTES = 128; // that a multiprocessor's shared memory moves in a clock
/** mma.sync reaches so much of that on Hopper, where only wgmma reaches all: 490 of 790 TFLOP/s measured. */
const SYNC_SHARE = 0.62;

/**
 * For each tile and architecture: the bytes that pass through shared memory for each FLOP, read by the products and
 * written by the copies, the share of the peak that they allow, and what binds.
 */
function printTiles(architectures: readonly string[], kernels: readonly Kernel[]): void {
  const shown = architectures.filter((one) => one in tensorFlops);
  console.log(markdownHead(['tile', 'bytes per FLOP', 'registers', ...shown.map((one) => `sm_${one}`)]));
  const ofTensorCores = [...tiles].filter(([name]) => /^(Hopper|Tensor)/.test(name));
  for (const [name, { rows, columns, down, across }] of ofTensorCores) {
    const bytes = (2 * (down + across)) / (2 * down * across) + (2 * (rows + columns)) / (2 * rows * columns);
    const usages = kernels.filter(([kernel]) => kernel.includes(name)).flatMap(([, list]) => list);
    const hopper = name.startsWith('Hopper');
    const own = usages.filter(({ architecture }) => !hopper || architecture === '90a');
    const cells = shown.map((architecture) => {
      if (hopper && architecture !== '90a') return '';
      const share = SHARED_BYTES / bytes / tensorFlops[architecture]!;
      const sync = !hopper && ['90a', '100'].includes(architecture) ? SYNC_SHARE : 1;
      const binds = share < sync ? 'shared memory' : sync < 1 ? 'mma.sync' : 'tensor cores';
      return `${Math.round(100 * Math.min(share, sync))} %, ${binds}`;
    });
    console.log(
      markdownRow([`\`${name}\``, bytes.toFixed(4), String(Math.max(...own.map((one) => one.registers))), ...cells]),
    );
  }
}

const shapes = [
  [768, 768],
  [768, 3072],
  [2048, 2048],
  [2048, 8192],
  [4096, 4096],
  [4096, 14336],
] as const;

/**
 * Prints GFLOP of a matrix's products and what they take at the ceilings, against PyTorch's fifteen plain products.
 * Returns the goals that are missed: at 2048 × 8192 products 1.3 times as fast with compensation and 1.6 times without.
 */
function printTimes(): string[] {
  const ceilings = Object.entries(cards);
  const head = ceilings.flatMap(([card]) => [`${card}, µs`, `× PyTorch`]);
  console.log(markdownHead(['matrix', 'compensated', 'legs', 'GFLOP', 'plain', ...head]));
  const missed: string[] = [];
  for (const [rows, columns] of shapes) {
    for (const compensated of [true, false]) {
      const coefficients = Float64Array.from(newtonSchulzCoefficients([rows, columns]).flat());
      const plan = addon().newtonSchulzPlan('cuda:0', 'float16', compensated, rows, columns, coefficients);
      const plain = plainFlops(rows, columns);
      const cells = ceilings.flatMap(([card, { ours, theirs }]) => {
        const ratio = plain / theirs / (plan.flops / ours);
        const goal = compensated ? 1.3 : 1.6;
        if (columns === 8192 && ratio < goal) missed.push(`2048 × 8192 on ${card}: ${ratio.toFixed(2)} of ${goal}`);
        return [(plan.flops / ours / 1e6).toFixed(0), ratio.toFixed(2)];
      });
      const gflop = (flops: number) => (flops / 1e9).toFixed(flops < 1e11 ? 1 : 0);
      console.log(
        markdownRow([
          `${rows}×${columns}`,
          compensated ? 'yes' : 'no',
          plan.legs.join(' + '),
          gflop(plan.flops),
          gflop(plain),
          ...cells,
        ]),
      );
    }
  }
  return missed;
}

main().catch((error: unknown) => {
  const { message } = error as Error;
  console.error(message === 'spawn nvcc ENOENT' ? 'Expected nvcc, of the CUDA toolkit, on the PATH' : message);
  process.exitCode = 2;
});
