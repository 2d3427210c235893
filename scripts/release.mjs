// Builds and packs what a release publishes: the package, and a package for each platform with the addon for it. The
// tarballs are left in release/. Publishes nothing.
import { mkdirSync, readdirSync, rmSync } from 'node:fs';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { BuildError, fail } from './build/run.mjs';
import { buildAddon } from './release/addon.mjs';
import { missingForPublication, packMain, packPlatform } from './release/packages.mjs';
import { ownPlatform, platforms } from './release/platforms.mjs';

const HELP = `Usage: node scripts/release.mjs [platform ...]

Builds, checks and packs the package and the packages of platforms into release/, and says what is missing before they
can be published.

  platform   ${Object.keys(platforms).join(', ')} (default: this machine's and, on Linux, those with a cross compiler)
  --help     print this

On Linux the addon is linked by Zig (ZIG, or a version from the npm registry) against glibc 2.28. The CUDA backend is in
linux-x64, which needs a CUDA toolkit; ROOT_OPTIMIZER_CUDA=0 leaves it out, for a trial.`;

const root = fileURLToPath(new URL('..', import.meta.url));

/** @param {string[]} args */
async function main(args) {
  const { values, positionals } = parseArgs({
    args,
    allowPositionals: true,
    options: { help: { type: 'boolean' } },
  });
  if (values.help) {
    console.log(HELP);
    return;
  }
  const unknown = positionals.find((name) => platforms[name] === undefined);
  if (unknown !== undefined) throw new BuildError(`Expected a platform, got "${unknown}".\n\n${HELP}`);
  const own = ownPlatform();
  const cross = Object.keys(platforms).filter((name) => name !== own && platforms[name]?.compiler !== undefined);
  const names = positionals.length > 0 ? positionals : [own, ...(process.platform === 'linux' ? cross : [])];

  const output = join(root, 'release');
  const work = join(output, 'work');
  mkdirSync(output, { recursive: true });
  for (const file of readdirSync(output)) if (file.endsWith('.tgz')) rmSync(join(output, file));
  const tarballs = [packMain(root, work, output)];
  for (const name of names) tarballs.push(packPlatform(root, name, await buildAddon(name, work), work, output));

  console.log('Would be published:');
  for (const { name, file, bytes, unpackedBytes } of tarballs) {
    console.log(`  ${name}  ${relative(root, file)}: ${kilobytes(bytes)} packed, ${kilobytes(unpackedBytes)} unpacked`);
  }
  const missing = missingForPublication(root, names);
  if (missing.length > 0) console.log(`Missing before a publication:\n  ${missing.join('\n  ')}`);
}

/** @param {number} bytes */
function kilobytes(bytes) {
  return `${(bytes / 1000).toFixed(0)} kB`;
}

await main(process.argv.slice(2)).catch(fail);
