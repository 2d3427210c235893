// Ends with process.exit in mid-call: `exits.ts <call> <file> <milliseconds> <status>`.
import { type Call, callForEver } from './calls.js';

const [call, file, after, status] = process.argv.slice(2) as [Call, string, string, string];

void callForEver(call, file, () => {
  if (after === '0') process.exit(Number(status));
  setTimeout(() => process.exit(Number(status)), Number(after));
});
