// Makes a file of tests run on the emulated device alone. The CPU has a round of its own.
import path from 'node:path';

process.env['ROOT_OPTIMIZER_ADDON'] = path.join(__dirname, '..', '..', 'build', 'Emulator', 'root_optimizer.node');
process.env['ROOT_OPTIMIZER_TEST_DEVICE'] = 'cuda:0';
