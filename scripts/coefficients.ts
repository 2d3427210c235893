// `npm run coefficients` fits the coefficients of common shapes anew and writes them to
// lib/coefficients/adaptive-table.json.
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { fitAdaptive, tableKey } from '../lib/coefficients/adaptive.js';

const stepCounts = [4, 5, 6];

/** The widths of each family's models, with the sizes that each width is projected to */
const families: Readonly<Record<string, Readonly<Record<number, readonly number[]>>>> = {
  'GPT-2': { 768: [768, 2304, 3072], 1024: [1024, 3072, 4096], 1280: [1280, 3840, 5120], 1600: [1600, 4800, 6400] },
  Llama: {
    2048: [512, 2048, 8192],
    3072: [1024, 3072, 8192],
    4096: [1024, 4096, 11008, 14336],
    5120: [5120, 13824],
    8192: [1024, 8192, 28672],
  },
  Qwen: {
    896: [128, 896, 4864],
    1024: [1024, 2048, 3072],
    1536: [256, 1536, 8960],
    2048: [256, 2048, 6144, 11008],
    2560: [1024, 2560, 4096, 9728],
    3584: [512, 3584, 18944],
    4096: [1024, 4096, 12288],
    5120: [1024, 5120, 8192, 17408, 25600, 27648],
    8192: [1024, 8192, 29568],
  },
  ViT: {
    192: [192, 576, 768],
    384: [384, 768, 1152, 1536],
    768: [768, 2304, 3072],
    1024: [588, 768, 1024, 3072, 4096],
    1280: [588, 768, 1280, 3840, 5120],
    1408: [588, 1408, 4224, 6144],
  },
};

/** Shapes from 1 : 1 to 1 : 16, and those of fused queries, keys and values */
const powersOfTwo = Array.from({ length: 9 }, (_, i) => 64 << i).flatMap((m) =>
  [1, 2, 3, 4, 8, 16].filter((ratio) => m * ratio <= 16384).map((ratio): [number, number] => [m, m * ratio]),
);

const familyShapes = Object.values(families).flatMap((widths) =>
  Object.entries(widths).flatMap(([width, sizes]) =>
    sizes.map((size): [number, number] => [Math.min(Number(width), size), Math.max(Number(width), size)]),
  ),
);

const shapes = new Map([...powersOfTwo, ...familyShapes].map((shape) => [shape.join('x'), shape]));
const sorted = [...shapes.values()].sort(([a, b], [c, d]) => a - c || b - d);
const lines = sorted.flatMap(([m, n]) =>
  stepCounts.map((steps) => `"${tableKey(m, n, steps)}": [${fitAdaptive(m, n, steps).flat().join(', ')}]`),
);

const file = 'lib/coefficients/adaptive-table.json';
writeFileSync(path.join(__dirname, '..', file), `{\n${lines.join(',\n')}\n}\n`);
console.log(`${file}: ${sorted.length} shapes, each for ${stepCounts.join(', ')} iterations`);
