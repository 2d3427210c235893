import { spawnSync } from 'node:child_process';
import { printable } from '../../errors.js';
import { type Check, findProgram, isAtLeast, note, ok, problem, variable } from './check.js';

/** What `root-optimizer build` needs: a compiler and make, and either CMake or Python 3. */
const leastCmake = '3.19';

/**
 * @param needed whether the addon has to be built, so that what is missing is a problem
 */
export function checkTools(needed: boolean): Check[] {
  return [checkCompiler(needed), checkBuilder(needed), ...checkFiles()];
}

function absent(needed: boolean, name: string, found: string, remedy: string): Check {
  return needed ? problem(name, found, remedy) : note(name, `${found}; only a build needs it`, remedy);
}

function checkCompiler(needed: boolean): Check {
  const asked = variable('CXX');
  // Such as "ccache g++".
  const [program, ...flags] = (asked ?? '').trim().split(/\s+/);
  const compiler = asked === undefined ? findProgram('g++', 'clang++') : findProgram(program!);
  if (compiler === undefined) {
    if (asked === undefined) return absent(needed, 'compiler', 'there is no C++ compiler', install('g++'));
    return problem(
      'compiler',
      `CXX is "${printable(asked)}", which is no program`,
      'unset CXX, or set it to a compiler',
    );
  }
  const args = [...flags, '-std=c++20', '-x', 'c++', '-fsyntax-only', '-'];
  const input = '#include <concepts>\n#include <span>\nstatic_assert(std::integral<int>);\n';
  const tried = spawnSync(compiler, args, { input, encoding: 'utf8', timeout: 30_000 });
  // A program that is no compiler may end well. This one has to fail.
  const refused = spawnSync(compiler, args, { input: 'no program', encoding: 'utf8', timeout: 30_000 });
  if (tried.status === 0 && refused.status !== 0) return ok('compiler', compiler);
  const text = `${compiler} does not compile C++20`;
  if (asked !== undefined) {
    return problem(
      'compiler',
      `CXX is "${printable(asked)}", and ${text}`,
      'unset CXX, or set it to g++ 10, clang 12 or newer',
    );
  }
  return absent(needed, 'compiler', text, `g++ 10, clang 12 or newer: ${install('g++')}`);
}

function checkBuilder(needed: boolean): Check {
  const [cmake, make] = [findProgram('cmake'), findProgram('make', 'ninja')];
  const python = findProgram(variable('PYTHON') ?? 'python3', 'python');
  if (make === undefined) return absent(needed, 'make', 'there is neither make nor Ninja', install('make'));
  if (cmake !== undefined) {
    const { stdout } = spawnSync(cmake, ['--version'], { encoding: 'utf8', timeout: 30_000 });
    const version = /version (\d+(\.\d+)*)/.exec(stdout)?.[1] ?? '0';
    if (isAtLeast(version, leastCmake)) return ok('cmake', `${cmake}, version ${version}`);
    return absent(
      needed,
      'cmake',
      `${cmake} is of version ${version}`,
      `CMake ${leastCmake} or newer: ${install('cmake')}`,
    );
  }
  if (python !== undefined) {
    const text = `there is no CMake; a build takes node-gyp with ${python}, for the CPU alone`;
    return note('cmake', text, install('cmake'));
  }
  return absent(needed, 'cmake', 'there is neither CMake nor Python 3', install('cmake'));
}

/** Variables that name programs of a build. */
function checkFiles(): Check[] {
  return ['CUDACXX', 'PYTHON'].flatMap((name) => {
    const value = variable(name);
    if (value === undefined || findProgram(value) !== undefined) return [];
    return [problem(name, `${name} is "${printable(value)}", which is no program`, `unset ${name}`)];
  });
}

function install(name: string): string {
  if (process.platform === 'darwin') return name === 'cmake' ? 'brew install cmake' : 'xcode-select --install';
  const fedora = name === 'g++' ? 'gcc-c++' : name;
  return `apt-get install ${name}, or dnf install ${fedora}`;
}
