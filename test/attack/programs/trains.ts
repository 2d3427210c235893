// Trains for ever, from the checkpoint on that is there, and keeps one of every step. It prints the numbers of steps.
import { runTraining } from './trainees.js';

void runTraining(process.argv[2], 1e6, (step) => console.log(step));
