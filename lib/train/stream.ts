/** A `Writable` of node:stream, as far as types go, so that a program compiles without Node's types. */
export interface TextStream {
  write(text: string): boolean;
}
