import { checkArray } from '../arrays.js';
import { RootError } from '../errors.js';
import type { Parameter } from '../parameter.js';

/** The arrays that a step works in, parallel to an optimizer's parameters. */
export interface Arrays {
  readonly data: readonly Float32Array[];
  readonly gradients: readonly Float32Array[];
}

/**
 * Returns the parameters' arrays as they are now. Checks that none is detached and that nothing a step writes shares
 * memory with anything else.
 * @param previous the result of the last check; shared memory is looked for only where an array was replaced since
 */
export function checkArrays(parameters: readonly Parameter[], previous?: Arrays): Arrays {
  const data = parameters.map((one) => checkArray(one.data, one.size, `data of parameter "${one.name}"`));
  const gradients = parameters.map((one) => checkArray(one.grad, one.size, `grad of parameter "${one.name}"`));
  if (previous !== undefined && same(data, previous.data) && same(gradients, previous.gradients)) return previous;
  checkApart(parameters, { data, gradients });
  return { data, gradients };
}

function same(a: readonly Float32Array[], b: readonly Float32Array[]): boolean {
  return a.every((array, i) => array === b[i]);
}

interface Extent {
  start: number;
  end: number;
  written: boolean;
  owner: string;
}

function checkApart(parameters: readonly Parameter[], { data, gradients }: Arrays): void {
  const extents = new Map<ArrayBufferLike, Extent[]>();
  const add = (array: Float32Array, written: boolean, owner: string) => {
    const extent = { start: array.byteOffset, end: array.byteOffset + array.byteLength, written, owner };
    const others = extents.get(array.buffer);
    if (others === undefined) extents.set(array.buffer, [extent]);
    else others.push(extent);
  };
  parameters.forEach((one, i) => {
    add(data[i]!, true, `data of parameter "${one.name}"`);
    add(gradients[i]!, false, `grad of parameter "${one.name}"`);
  });
  for (const sharers of extents.values()) {
    sharers.sort((a, b) => a.start - b.start);
    let [furthest, furthestWritten]: (Extent | undefined)[] = [];
    for (const extent of sharers) {
      const before = extent.written ? furthest : furthestWritten;
      if (before !== undefined && before.end > extent.start) {
        throw new RootError(
          'ERR_INVALID_ARGUMENT',
          `Expected arrays that share no memory, got ${before.owner} and ${extent.owner} that do`,
        );
      }
      if (furthest === undefined || extent.end > furthest.end) furthest = extent;
      if (extent.written && (furthestWritten === undefined || extent.end > furthestWritten.end)) {
        furthestWritten = extent;
      }
    }
  }
}
