// Runs before the emulated tests. Builds the addon whose CUDA devices are emulated, where it is not up to date.
import { buildEmulator } from '../../scripts/build-emulator.mjs';

export default async () => {
  await buildEmulator();
};
