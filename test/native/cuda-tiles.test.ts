import { devicesUnderTest, isEmulated, runScript } from '../support.js';

/** The tiles of cuda/gemm.cu. A machine chooses among them by its size, so that small products see only one of them. */
const tiles = ['w256x128x64', 'w128x128x64', '128x128x32', '64x64x32', 'f128x128x16', 'f64x64x16'];
const device = devicesUnderTest().find((one) => one !== 'cpu') ?? 'cuda';
const onCuda = devicesUnderTest().includes(device) ? describe : describe.skip;

const capability = isEmulated(device) ? '9.0' : 'its own';
const cases = tiles.map((tile) => [tile, capability]);
// The tiles for wgmma are impossible here, and another one is taken.
if (isEmulated(device)) cases.push([tiles[0]!, '8.0']);

// Shapes are wide and tall, no multiples of a tile's sides, and larger than one tile.
const script = `
  const { gaussian, parameters, fillGradients, relativeError } = require('./test/support.ts');
  const device = ${JSON.stringify(device)};
  const errors = {};
  const forced = process.env.ROOT_OPTIMIZER_GEMM;
  for (const precision of forced.startsWith('f') ? ['float32'] : ['float16', 'bfloat16']) {
    for (const [rows, columns] of [[65, 200], [200, 65], [129, 257], [300, 300]]) {
      const x = gaussian(rows * columns, rows);
      const options = { steps: rows === 300 ? 1 : 3, compensated: true };
      const expected = orthogonalizeSync(x, [rows, columns], { ...options, device: 'cpu', precision: 'float32' });
      const result = orthogonalizeSync(x, [rows, columns], { ...options, device, precision });
      errors[rows + ' × ' + columns + ' in ' + precision] = relativeError(result, expected);
    }
    const [there, here] = [0, 1].map(() => parameters('w', [[70, 150], [70, 150], [70, 150]]));
    fillGradients(1, there, here);
    for (const [model, settings] of [[there, { device, precision }], [here, { device: 'cpu' }]]) {
      const optimizer = new Root(model, { ...settings, compensated: true, lr: 0.5, weightDecay: 1 });
      optimizer.stepSync();
      optimizer.dispose();
    }
    there.forEach((one, i) => {
      errors['matrix ' + i + ' of a batch in ' + precision] = relativeError(one.data, here[i].data);
    });
  }
  console.log(JSON.stringify(errors));
`;

onCuda('products in tiles of every size', () => {
  test('have these names, and no others', () => {
    const message = runScript<string>(
      `try {
        orthogonalizeSync(new Float32Array(6).fill(1), [2, 3], { device: ${JSON.stringify(device)} });
      } catch (error) {
        console.log(JSON.stringify(error.message));
      }`,
      { ROOT_OPTIMIZER_GEMM: '3x3x3' },
    );
    expect(message).toContain(`Expected ROOT_OPTIMIZER_GEMM to be one of ${tiles.join(', ')}, got 3x3x3`);
  });

  // Of the seven shapes the first six have all iterations in one launch, unless a tile is forced.
  test('small matrices have the same bits in one launch as in products of tiles', () => {
    const results = `
      const { bits, gaussian, parameters, fillGradients } = require('./test/support.ts');
      const results = {};
      for (const precision of ['float16', 'bfloat16']) {
        for (const [rows, columns] of [[1, 1], [3, 200], [200, 3], [64, 64], [128, 150], [100, 37], [128, 700]]) {
          for (const [coefficients, compensated] of [['adaptive', true], ['polar-express', true], ['cubic5', false]]) {
            const options = { device: ${JSON.stringify(device)}, precision, coefficients, compensated };
            const x = gaussian(rows * columns, rows + columns);
            results[[precision, rows, columns, coefficients]] = bits(orthogonalizeSync(x, [rows, columns], options));
          }
        }
        for (const options of [{}, { normalize: 'rows' }, { weightDecayKind: 'cautious' }]) {
          const model = parameters('w', [[33, 70], [33, 70], [70, 33]]);
          fillGradients(1, model);
          const settings = { device: ${JSON.stringify(device)}, precision, lr: 0.5, weightDecay: 1, ...options };
          const optimizer = new Root(model, settings);
          optimizer.stepSync();
          optimizer.dispose();
          results[[precision, JSON.stringify(options)]] = model.map((one) => bits(one.data)).join();
        }
      }
      console.log(JSON.stringify(results));`;
    const [whole, tiled] = ['', '64x64x32'].map((tile) =>
      runScript<Record<string, string>>(results, { ROOT_OPTIMIZER_GEMM: tile }),
    );
    expect(Object.keys(whole!)).toHaveLength(48);
    const names = Object.keys(whole!);
    expect(names.filter((name) => whole![name] !== tiled![name])).toEqual([]);
  });

  test.each(cases)('%s agrees with the CPU on compute capability %s', (tile, version) => {
    const emulated = { EMULATOR_CAPABILITY: version, EMULATOR_DEVICES: '1' };
    const errors = runScript<Record<string, number>>(script, {
      ROOT_OPTIMIZER_GEMM: tile,
      ...(isEmulated(device) ? emulated : {}),
    });
    expect(Object.keys(errors)).toHaveLength(tile.startsWith('f') ? 7 : 14);
    const limit = (name: string) => (name.includes('float32') ? 1e-5 : name.includes('bfloat16') ? 3e-2 : 5e-3);
    expect(Object.entries(errors).filter(([name, error]) => !(error < limit(name)))).toEqual([]);
  });
});
