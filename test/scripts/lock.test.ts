import { execFile } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { promisify } from 'node:util';

const lockModule = pathToFileURL(path.join(__dirname, '../../scripts/lock.mjs')).href;
const holder = `
  import { withLock } from ${JSON.stringify(lockModule)};
  import { appendFileSync } from 'node:fs';
  await withLock('lock', async () => {
    appendFileSync('log', 'in ');
    await new Promise((resolve) => setTimeout(resolve, 100));
    appendFileSync('log', 'out ');
  });`;

let folder: string;
beforeEach(() => (folder = mkdtempSync(path.join(tmpdir(), 'root-optimizer-'))));
afterEach(() => rmSync(folder, { recursive: true, force: true }));

test('one process at a time holds the lock, though the first holder was killed', async () => {
  mkdirSync(path.join(folder, 'lock'));
  writeFileSync(path.join(folder, 'lock', 'killed'), '');
  const run = () => promisify(execFile)(process.execPath, ['--input-type=module', '-e', holder], { cwd: folder });
  await Promise.all([run(), run(), run()]);
  expect(readFileSync(path.join(folder, 'log'), 'utf8')).toBe('in out '.repeat(3));
  expect(readdirSync(folder)).toEqual(['log']);
}, 30_000);
