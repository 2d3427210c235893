#!/usr/bin/env node
// Stands in for Python with PyTorch beside scripts/bench/cuda.ts. Every task takes two milliseconds.
import { createInterface } from 'node:readline';

const tasks = ['muon', 'root', 'copy', 'product', 'torch.optim.Muon'];
console.log(JSON.stringify({ name: 'a fake of PyTorch', tasks }));
for await (const line of createInterface({ input: process.stdin })) {
  const { task, repeats } = JSON.parse(line);
  if (!tasks.includes(task)) throw new Error(`Expected a task, got ${task}`);
  console.log(JSON.stringify(Array.from({ length: repeats }, () => 2)));
}
