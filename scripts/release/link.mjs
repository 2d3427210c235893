#!/usr/bin/env node
// Links the addon of a release, in place of the compiler: CMake calls it with the compiler's own command. Zig's linker
// has the symbols of every version of glibc, so that what it links asks for no newer one than the floor. The standard
// library is the compiler's, linked statically.
import { execFileSync, spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

const [compiler = '', ...args] = process.argv.slice(2);
const [zig = '', target = ''] = [process.env['RELEASE_ZIG'], process.env['RELEASE_TARGET']];

/** @param {string} question */
const ask = (question) => execFileSync(compiler, [question], { encoding: 'utf8' }).trim();

const linked = [
  // The compiler's flags for sources are not for this link, whose one source is C.
  ...args.filter((arg) => !/^-(W(?!l,)|D|O|std|ffp|lstdc)/.test(arg)),
  fileURLToPath(new URL('glibc-floor.c', import.meta.url)),
  ...[ask('-print-file-name=libstdc++.a'), ask('-print-libgcc-file-name'), '-lunwind', '-lm'],
  // Drops what the standard library has and the addon does not use, along with the symbols that it would ask for.
  ...['-O2', '-Wl,--gc-sections'],
];
const { status, error } = spawnSync(zig, ['cc', '-target', target, ...linked], { stdio: 'inherit' });
if (error) throw error;
process.exit(status ?? 1);
