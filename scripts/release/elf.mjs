import { execFileSync } from 'node:child_process';

/**
 * What a shared library asks of the system that loads it.
 * @typedef {object} Needs
 * @property {string[]} libraries
 * @property {{ name: string, version: string | undefined }[]} symbols that other libraries have to define
 * @property {string[]} exports
 */

/**
 * @param {string} file
 * @returns {Needs}
 */
export function readNeeds(file) {
  const read = (/** @type {string} */ option) =>
    execFileSync('readelf', ['--wide', option, file], { encoding: 'utf8', maxBuffer: 1 << 28 }).split('\n');
  const libraries = read('--dynamic').flatMap((line) => /\(NEEDED\).*\[(.*)\]/.exec(line)?.[1] ?? []);
  const rows = read('--dyn-syms').map((line) => line.trim().split(/\s+/));
  const symbols = rows.flatMap(([, , , , bind, , section, name]) => {
    if (section !== 'UND' || bind !== 'GLOBAL' || name === undefined) return [];
    const [plain = '', version] = name.split(/@+/);
    return [{ name: plain, version }];
  });
  const exports = rows.flatMap(([, , , , bind, , section, name]) =>
    section !== undefined && /^\d+$/.test(section) && bind === 'GLOBAL' && name !== undefined ? [name] : [],
  );
  return { libraries, symbols, exports };
}

/**
 * Returns what stands against loading an addon on a system whose glibc is as old as `floor`: newer symbols, libraries
 * that are not the C library's, symbols that neither glibc nor Node defines, and definitions that could clash with
 * others in the process.
 * @param {Needs} needs
 * @param {string} floor
 * @returns {string[]}
 */
export function obstacles({ libraries, symbols, exports }, floor) {
  const foreign = libraries.filter((name) => !/^(lib(c|m|dl|rt|pthread)\.so\.\d|ld-linux.*\.so\.\d)$/.test(name));
  const tooNew = symbols.filter(({ version }) => {
    const glibc = /^GLIBC_([\d.]+)$/.exec(version ?? '')?.[1];
    return version !== undefined && (glibc === undefined || isNewer(glibc, floor));
  });
  const unknown = symbols.filter(({ name, version }) => version === undefined && !name.startsWith('napi_'));
  return [
    ...foreign.map((name) => `needs the library ${name}`),
    ...tooNew.map(({ name, version }) => `needs ${name}@${version}`),
    ...unknown.map(({ name }) => `needs ${name}, which nobody defines`),
    ...exports.filter((name) => !/^n(api|ode_api)_/.test(name)).map((name) => `defines ${name} for others`),
  ];
}

/**
 * @param {string} version
 * @param {string} floor
 */
function isNewer(version, floor) {
  return version.localeCompare(floor, 'en', { numeric: true }) > 0;
}
