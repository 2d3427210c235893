/**
 * A peer of `npm run bench:peers`: the iteration in plain JavaScript, with ml-matrix. It answers each line of request
 * with a line of JSON.
 */
import { createInterface } from 'node:readline';
import { Matrix } from 'ml-matrix';
import { milliseconds } from '../common/time.js';

interface Request {
  rows: number;
  columns: number;
  repeats: number;
}

const [a, b, c] = [3.4445, -4.775, 2.0315];

function newtonSchulz(input: Matrix): Matrix {
  const tall = input.rows > input.columns;
  let x = tall ? input.transpose() : input;
  x = Matrix.div(x, x.norm('frobenius') + 1e-7);
  for (let i = 0; i < 5; i++) {
    const gram = x.mmul(x.transpose());
    const polynomial = gram.mmul(gram).mul(c).add(Matrix.mul(gram, b));
    x = polynomial.mmul(x).add(Matrix.mul(x, a));
  }
  return tall ? x.transpose() : x;
}

console.log(
  JSON.stringify({ name: 'ml-matrix in JavaScript', tasks: ['orthogonalize'], threads: [1], mostElements: 256 * 512 }),
);
createInterface({ input: process.stdin }).on('line', (line) => {
  const { rows, columns, repeats } = JSON.parse(line) as Request;
  const x = Matrix.random(rows, columns);
  // A call of ml-matrix takes so long that two per turn tell its time.
  const samples = Array.from({ length: Math.min(repeats, 2) }, () => milliseconds(() => newtonSchulz(x)));
  console.log(JSON.stringify(samples));
});
