import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

const root = path.join(__dirname, '..');

/** The first block of TypeScript in a page, as a reader would copy it. */
function example(page: string): string {
  const [, code] = /^```ts\n([^]*?)^```/m.exec(readFileSync(path.join(root, page), 'utf8')) ?? [];
  if (code === undefined) throw new Error(`${page} has no block that begins with \`\`\`ts`);
  return code;
}

test.each(['README.md', 'docs/training.md'])(
  'the example of %s runs as it stands',
  (page) => {
    const code = example(page);
    expect(code).toContain("from 'root-optimizer'");
    const folder = mkdtempSync(path.join(tmpdir(), 'root-optimizer-'));
    try {
      const file = path.join(folder, 'example.mts');
      writeFileSync(file, code.replaceAll("'root-optimizer'", JSON.stringify(path.join(root, 'lib/index.ts'))));
      const { status, stdout, stderr } = spawnSync(process.execPath, ['--import', require.resolve('tsx'), file], {
        cwd: folder,
        encoding: 'utf8',
      });
      expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
      expect(Number(stdout.replace('largest error', ''))).toBeLessThan(0.3);
    } finally {
      rmSync(folder, { recursive: true });
    }
  },
  60_000,
);
