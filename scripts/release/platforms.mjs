/**
 * A platform that has a package of its own.
 * @typedef {object} Platform
 * @property {string} os
 * @property {string} cpu
 * @property {'glibc' | 'musl'} [libc]
 * @property {string} [compiler] the cross compiler that builds for it elsewhere
 * @property {string} [target] what the linker calls it
 * @property {string[]} [emulator] the program that runs its programs elsewhere
 */

/** The oldest C library to run on, which is that of Node's own releases. */
export const glibcFloor = '2.28';

/** @type {Readonly<Record<string, Platform>>} */
export const platforms = {
  'linux-x64': { os: 'linux', cpu: 'x64', libc: 'glibc', target: 'x86_64-linux-gnu' },
  'linux-x64-musl': { os: 'linux', cpu: 'x64', libc: 'musl' },
  'linux-arm64': {
    os: 'linux',
    cpu: 'arm64',
    libc: 'glibc',
    target: 'aarch64-linux-gnu',
    compiler: 'aarch64-linux-gnu-g++',
    emulator: ['qemu-aarch64', '-L', '/usr/aarch64-linux-gnu'],
  },
  'darwin-arm64': { os: 'darwin', cpu: 'arm64' },
  'darwin-x64': { os: 'darwin', cpu: 'x64' },
};

/** The name of the platform that this process runs on. */
export function ownPlatform() {
  const { platform, arch } = process;
  const report = /** @type {{ header: { glibcVersionRuntime?: string } }} */ (process.report.getReport());
  const isMusl = platform === 'linux' && report.header.glibcVersionRuntime === undefined;
  return `${platform}-${arch}${isMusl ? '-musl' : ''}`;
}

/** @param {string} platform */
export function packageName(platform) {
  return `@root-optimizer/${platform}`;
}
