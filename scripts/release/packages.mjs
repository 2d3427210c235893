import { execFileSync } from 'node:child_process';
import * as fs from 'node:fs';
import { dirname, join } from 'node:path';
import { packageName, platforms } from './platforms.mjs';

/** @import { Platform } from './platforms.mjs' */
/** @typedef {{ name: string, file: string, bytes: number, unpackedBytes: number }} Tarball */

/** What a build from the sources needs. Its versions stay among the packed devDependencies, which nobody installs. */
const buildTools = ['cmake-js', 'node-addon-api', 'node-api-headers', 'node-gyp'];

/** Fields that only a publisher knows. */
const addresses = ['author', 'repository', 'homepage', 'bugs'];

/**
 * Packs the package itself. Its platform packages are optional dependencies of what is packed, not of the clone.
 * @param {string} root
 * @param {string} work
 * @param {string} output
 * @returns {Tarball}
 */
export function packMain(root, work, output) {
  const draft = join(work, 'root-optimizer');
  fs.rmSync(draft, { recursive: true, force: true });
  execFileSync('npm', ['run', 'prepack'], { cwd: root, stdio: ['ignore', 'ignore', 'inherit'] });
  for (const { path } of npmPack(root, ['--dry-run', '--ignore-scripts']).files) {
    fs.mkdirSync(dirname(join(draft, path)), { recursive: true });
    fs.copyFileSync(join(root, path), join(draft, path));
  }
  const { devDependencies, scripts: _, prettier: __, ...manifest } = readManifest(root);
  const optionalDependencies = Object.fromEntries(
    Object.keys(platforms).map((name) => [packageName(name), manifest['version']]),
  );
  const tools = Object.fromEntries(buildTools.map((name) => [name, devDependencies[name]]));
  writeManifest(draft, { ...manifest, optionalDependencies, devDependencies: tools });
  return pack(draft, output);
}

/**
 * Packs the package of a platform, which holds its addon alone.
 * @param {string} root
 * @param {string} platform
 * @param {string} addon
 * @param {string} work
 * @param {string} output
 * @returns {Tarball}
 */
export function packPlatform(root, platform, addon, work, output) {
  const { os, cpu, libc } = /** @type {Platform} */ (platforms[platform]);
  const manifest = readManifest(root);
  const shared = ['version', 'license', 'engines', ...addresses].map((key) => [key, manifest[key]]);
  const draft = join(work, `package-${platform}`);
  fs.rmSync(draft, { recursive: true, force: true });
  fs.mkdirSync(draft, { recursive: true });
  writeManifest(draft, {
    name: packageName(platform),
    description: `The native addon of root-optimizer for ${platform}`,
    ...Object.fromEntries(shared),
    os: [os],
    cpu: [cpu],
    ...(libc === undefined ? {} : { libc: [libc] }),
    main: 'root_optimizer.node',
    preferUnplugged: true,
  });
  fs.copyFileSync(join(root, 'LICENSE'), join(draft, 'LICENSE'));
  fs.writeFileSync(
    join(draft, 'README.md'),
    `# ${packageName(platform)}\n\nThe native addon of \`root-optimizer\` for ${platform}. Install ` +
      '`root-optimizer`, which depends on it.\n',
  );
  fs.copyFileSync(addon, join(draft, 'root_optimizer.node'));
  return pack(draft, output);
}

/**
 * What has to be there before a publication, and is not.
 * @param {string} root
 * @param {readonly string[]} built platforms
 */
export function missingForPublication(root, built) {
  const manifest = readManifest(root);
  return [
    ...addresses.filter((key) => manifest[key] === undefined).map((key) => `"${key}" in package.json`),
    ...Object.keys(platforms)
      .filter((name) => !built.includes(name))
      .map((name) => `${packageName(name)}, built on such a machine`),
  ];
}

/**
 * @param {string} folder
 * @param {string} output
 * @returns {Tarball}
 */
function pack(folder, output) {
  fs.mkdirSync(output, { recursive: true });
  const { name, filename, size, unpackedSize } = npmPack(folder, ['--pack-destination', output]);
  return { name, file: join(output, filename), bytes: size, unpackedBytes: unpackedSize };
}

/**
 * @param {string} folder
 * @param {string[]} options
 * @returns {{ name: string, filename: string, size: number, unpackedSize: number, files: { path: string }[] }}
 */
function npmPack(folder, options) {
  const output = execFileSync('npm', ['pack', '--json', ...options], { cwd: folder, encoding: 'utf8' });
  const parsed = JSON.parse(output);
  return Array.isArray(parsed) ? parsed[0] : Object.values(parsed)[0];
}

/**
 * @param {string} folder
 * @returns {Record<string, any>}
 */
function readManifest(folder) {
  return JSON.parse(fs.readFileSync(join(folder, 'package.json'), 'utf8'));
}

/**
 * @param {string} folder
 * @param {object} manifest
 */
function writeManifest(folder, manifest) {
  fs.writeFileSync(join(folder, 'package.json'), `${JSON.stringify(manifest, null, 2)}\n`);
}
