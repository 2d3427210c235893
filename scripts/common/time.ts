/** Milliseconds that a call takes. */
export function milliseconds(call: () => unknown): number {
  const start = performance.now();
  call();
  return performance.now() - start;
}
