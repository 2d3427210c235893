// Jest compares arrays number by number, at a microsecond each. Typed arrays of the same bits are equal. It goes on to
// compare all others as it does by itself, and says where they differ.

/** What @types/jest lacks of `expect`. A tester that returns nothing leaves the comparison to Jest. */
interface Extensible {
  addEqualityTesters: (testers: ((a: unknown, b: unknown) => boolean | undefined)[]) => void;
}

function bytesOf({ buffer, byteOffset, byteLength }: ArrayBufferView): Buffer {
  return Buffer.from(buffer, byteOffset, byteLength);
}

(expect as unknown as Extensible).addEqualityTesters([
  (a, b) => {
    const areViews = ArrayBuffer.isView(a) && ArrayBuffer.isView(b) && a.constructor === b.constructor;
    return areViews && bytesOf(a).equals(bytesOf(b)) ? true : undefined;
  },
]);
