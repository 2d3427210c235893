import { spawnSync } from 'node:child_process';
import {
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

const root = path.join(__dirname, '..');
const { version } = JSON.parse(readFileSync(path.join(root, 'package.json'), 'utf8')) as { version: string };
const isMusl = !('glibcVersionRuntime' in (process.report.getReport() as { header: object }).header);
const platform = `${process.platform}-${process.arch}${process.platform === 'linux' && isMusl ? '-musl' : ''}`;
const candidates = [
  process.env['ROOT_OPTIMIZER_ADDON'] ?? '',
  'build/Release/root_optimizer.node',
  'native/build/Release/root_optimizer.node',
];
const built = candidates
  .filter((file) => file !== '')
  .map((file) => path.resolve(root, file))
  .find((file) => existsSync(file))!;

/** A copy of a clone's sources, without an addon. */
let copy: string;
beforeEach(() => {
  copy = mkdtempSync(path.join(tmpdir(), 'root-optimizer-'));
  cpSync(path.join(root, 'lib'), path.join(copy, 'lib'), { recursive: true });
  for (const file of ['package.json', 'package-lock.json']) copyFileSync(path.join(root, file), path.join(copy, file));
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
function use(addon = ''): {
  name?: string;
  code?: string;
  message?: string;
  cause?: string;
  cpu?: object;
  addon?: object;
} {
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
    env: { ...process.env, ROOT_OPTIMIZER_ADDON: addon, ROOT_OPTIMIZER_CACHE: path.join(copy, 'cache') },
  });
  expect(stderr).toBe('');
  return JSON.parse(stdout) as ReturnType<typeof use>;
}

test.each([['build/Release'], ['native/build/Release']])('loads what is built in %s', (folder) => {
  put(folder);
  put('build/Debug', 'must not be loaded');
  expect(use()).toHaveProperty('cpu.physicalCores');
});

test('says in one line how to build what is missing, and where it looked', () => {
  const { name, code, message } = use();
  expect([name, code]).toEqual(['RootError', 'ERR_ADDON_MISSING']);
  expect(message).toMatch(
    /^The native addon is missing: @root-optimizer\/.* is not installed, .*; run: npx root-optimizer build$/,
  );
  expect(message).toContain(path.join(copy, 'build/Release'));
});

test('an installed package takes the last build in the cache, and none of its own folder', () => {
  rmSync(path.join(copy, 'package-lock.json'));
  put('build/Release');
  expect(use().message).toContain(path.join(copy, 'cache', version, platform, 'current'));
  const file = put(`cache/${version}/${platform}/4f2a`);
  symlinkSync('4f2a', path.join(copy, 'cache', version, platform, 'current'));
  expect(use()).toMatchObject({ addon: { path: file.replace('4f2a', 'current'), source: 'build' } });
});

test('takes the package for the platform where nothing is built', () => {
  rmSync(path.join(copy, 'node_modules'));
  mkdirSync(path.join(copy, 'node_modules'));
  for (const name of readdirSync(path.join(root, 'node_modules'))) {
    symlinkSync(path.join(root, 'node_modules', name), path.join(copy, 'node_modules', name));
  }
  const file = put(`node_modules/@root-optimizer/${platform}`);
  expect(use()).toMatchObject({ addon: { path: realpathSync(file), source: 'package' } });
  const own = put('build/Release');
  expect(use()).toMatchObject({ addon: { path: own, source: 'build' } });
});

test('says that it has been bundled', () => {
  put('build/Release');
  writeFileSync(path.join(copy, 'package.json'), JSON.stringify({ name: 'somebody-elses' }));
  expect(use()).toMatchObject({
    code: 'ERR_ADDON_MISSING',
    message: expect.stringContaining('mark root-optimizer as external') as string,
  });
});

test('tells a build that does not load from none', () => {
  const file = put('build/Release', 'not an addon');
  const { code, message, cause } = use();
  expect(code).toBe('ERR_ADDON_MISSING');
  expect(message).toContain(`The native addon at ${file} does not load (${cause!.split('\n')[0]!})`);
  expect(message).toContain('npx root-optimizer build');
});

test('ROOT_OPTIMIZER_ADDON comes first', () => {
  put('build/Release', 'must not be loaded');
  expect(use(built)).toMatchObject({ addon: { path: built, source: 'environment' } });
  expect(use('/nonexistent/addon.node')).toMatchObject({
    code: 'ERR_ADDON_MISSING',
    message: expect.stringMatching(
      /^The native addon at \/nonexistent\/addon.node does not load \(.*\); ROOT_OPTIMIZER_ADDON names it$/,
    ) as string,
  });
});
