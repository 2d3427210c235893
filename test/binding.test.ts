import { spawnSync } from 'node:child_process';
import { copyFileSync, cpSync, existsSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

const root = path.join(__dirname, '..');
const candidates = [
  process.env['ROOT_OPTIMIZER_ADDON'] ?? '',
  'build/Release/root_optimizer.node',
  'native/build/Release/root_optimizer.node',
];
const built = candidates
  .filter((file) => file !== '')
  .map((file) => path.resolve(root, file))
  .find((file) => existsSync(file))!;

/** A copy of the package's sources, without an addon. */
let copy: string;
beforeEach(() => {
  copy = mkdtempSync(path.join(tmpdir(), 'root-optimizer-'));
  cpSync(path.join(root, 'lib'), path.join(copy, 'lib'), { recursive: true });
  copyFileSync(path.join(root, 'package.json'), path.join(copy, 'package.json'));
  symlinkSync(path.join(root, 'node_modules'), path.join(copy, 'node_modules'));
});
afterEach(() => {
  rmSync(copy, { recursive: true });
});

function put(folder: string, content?: string): string {
  const file = path.join(copy, folder, 'root_optimizer.node');
  mkdirSync(path.dirname(file), { recursive: true });
  if (content === undefined) copyFileSync(built, file);
  else writeFileSync(file, content);
  return file;
}

/** Returns what a process gets that imports the copy and asks for its devices. */
function use(addon = ''): { name?: string; code?: string; message?: string; cause?: string; cpu?: object } {
  const script = `
    require('tsx/cjs');
    try { console.log(JSON.stringify(require(${JSON.stringify(path.join(copy, 'lib/index.ts'))}).devices())); }
    catch ({ name, code, message, cause }) {
      console.log(JSON.stringify({ name, code, message, cause: cause?.message }));
    }
  `;
  const { stdout, stderr } = spawnSync(process.execPath, ['-e', script], {
    cwd: root,
    encoding: 'utf8',
    env: { ...process.env, ROOT_OPTIMIZER_ADDON: addon },
  });
  expect(stderr).toBe('');
  return JSON.parse(stdout) as ReturnType<typeof use>;
}

test.each([['build/Release'], ['native/build/Release']])('loads what is built in %s', (folder) => {
  put(folder);
  put('build/Debug', 'must not be loaded');
  expect(use()).toHaveProperty('cpu.physicalCores');
});

test('says how to build what is not built, and where it looked', () => {
  const { name, code, message } = use();
  expect([name, code]).toEqual(['RootError', 'ERR_DEVICE_UNAVAILABLE']);
  expect(message).toMatch(/^The native addon is not built; run: npx root-optimizer build\nLooked for /);
  expect(message).toContain(path.join(copy, 'build/Release/root_optimizer.node'));
});

test('tells a build that does not load from none', () => {
  const file = put('build/Release', 'not an addon');
  const { code, message, cause } = use();
  expect(code).toBe('ERR_DEVICE_UNAVAILABLE');
  expect(message).toContain(`The native addon at ${file} does not load (${cause!})`);
  expect(message).toContain('npx root-optimizer build');
});

test('ROOT_OPTIMIZER_ADDON comes first', () => {
  put('build/Release', 'must not be loaded');
  expect(use(built)).toHaveProperty('cpu.physicalCores');
  expect(use('/nonexistent/addon.node')).toMatchObject({
    code: 'ERR_DEVICE_UNAVAILABLE',
    message: expect.stringMatching(
      /^Cannot load the addon that ROOT_OPTIMIZER_ADDON names: .*\/nonexistent\/addon.node/s,
    ) as string,
  });
});
