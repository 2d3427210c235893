/**
 * The rooms (folders) of lib, in an order in which each may import only those before it. The files of lib itself,
 * except those of `face`, are the ground: they import only one another.
 * @type {readonly string[]}
 */
const rooms = ['coefficients', 'checkpoint', 'optimizer', 'adapters', 'train', 'cli'];
const face = '^lib/(index|functions|orthogonality)\\.m?ts$';

/** @type {import('dependency-cruiser').IConfiguration} */
export default {
  forbidden: [
    { name: 'no-circle', severity: 'error', from: {}, to: { circular: true } },
    { name: 'no-missing-file', severity: 'error', from: {}, to: { couldNotResolve: true } },
    {
      name: 'lib-stands-alone',
      comment: 'What is shipped imports neither scripts nor tests.',
      severity: 'error',
      from: { path: '^lib/' },
      to: { path: '^(scripts|test)/' },
    },
    {
      name: 'scripts-know-no-tests',
      severity: 'error',
      from: { path: '^scripts/' },
      to: { path: '^test/' },
    },
    {
      name: 'ground-knows-no-room',
      severity: 'error',
      from: { path: '^lib/[^/]+$', pathNot: face },
      to: { path: ['^lib/[^/]+/', face] },
    },
    {
      name: 'rooms-know-no-face',
      comment: 'index, functions and orthogonality stand above the rooms, of which train alone uses the last two.',
      severity: 'error',
      from: { path: '^lib/[^/]+/', pathNot: '^lib/train/' },
      to: { path: face },
    },
    {
      name: 'train-knows-no-index',
      severity: 'error',
      from: { path: '^lib/train/' },
      to: { path: '^lib/index\\.m?ts$' },
    },
    ...rooms.slice(0, -1).map((room, i) => ({
      name: `${room}-knows-no-later-room`,
      severity: /** @type {const} */ ('error'),
      from: { path: `^lib/${room}/` },
      to: { path: rooms.slice(i + 1).map((later) => `^lib/${later}/`) },
    })),
    {
      name: 'one-loader',
      comment: 'Only lib/binding.ts loads the native addon.',
      severity: 'error',
      from: { path: '^lib/', pathNot: '^lib/binding\\.ts$' },
      to: { path: 'node_modules/bindings/' },
    },
  ],
  options: {
    doNotFollow: { path: 'node_modules' },
    tsConfig: { fileName: 'tsconfig.json' },
    tsPreCompilationDeps: true,
    enhancedResolveOptions: { exportsFields: ['exports'], conditionNames: ['import', 'require', 'node', 'types'] },
  },
};
