// Trains and saves to one file for ever. It prints what the file is about to hold before a save, and `saved` after it.
import { digest } from '../support.js';
import { makeTrainee, stepTrainee } from './trainees.js';

const [file, seed] = [process.argv[2]!, Number(process.argv[3])];

void (async () => {
  const optimizer = makeTrainee(seed);
  for (let step = 1; ; step++) {
    stepTrainee(optimizer, 100 * seed + step);
    const held = digest(optimizer);
    console.log(held);
    await optimizer.save(file, { notes: { digest: held } });
    console.log('saved');
  }
})();
