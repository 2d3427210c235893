import type { Gpt } from './model.js';
import type { Random } from '../common/random.js';

/**
 * Returns the text with which the model continues `prompt`, byte by byte.
 * @param prompt tokens, at most `context` of them
 * @param temperature below 1 favours what is likely
 */
export async function sample(
  model: Gpt,
  prompt: ArrayLike<number>,
  length: number,
  temperature: number,
  random: Random,
): Promise<number[]> {
  const { context, vocabulary } = model.shape;
  const tokens = Array.from(prompt);
  while (tokens.length < prompt.length + length) {
    const seen = tokens.slice(-context);
    const window = new Int32Array(context);
    window.set(seen);
    // The window's contents after the last token have no effect.
    const logits = (await model.logits(window)).subarray((seen.length - 1) * vocabulary, seen.length * vocabulary);
    const most = Math.max(...logits);
    const weights = Array.from(logits, (logit) => Math.exp((logit - most) / temperature));
    let left = random() * weights.reduce((a, b) => a + b, 0);
    const token = weights.findIndex((weight) => (left -= weight) < 0);
    tokens.push(token < 0 ? logits.indexOf(most) : token);
  }
  return tokens.slice(prompt.length);
}
