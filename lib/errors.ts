/** The reason why a call failed, for a program to act on. The message is for people. */
export type RootErrorCode =
  | 'ERR_INVALID_ARGUMENT'
  | 'ERR_SHAPE_MISMATCH'
  | 'ERR_NON_FINITE'
  | 'ERR_BUSY'
  | 'ERR_DISPOSED'
  | 'ERR_ADDON_MISSING'
  | 'ERR_DEVICE_UNAVAILABLE'
  | 'ERR_OUT_OF_MEMORY'
  | 'ERR_CUDA'
  | 'ERR_CHECKPOINT';

/**
 * The error that this package throws. Its `message` says what was expected and what came.
 *
 * It is thrown before anything changes, with two exceptions: the arrays of a step are taken away while it runs, or CUDA
 * fails during the updates.
 */
export class RootError extends Error {
  readonly code: RootErrorCode;

  static {
    Object.defineProperty(this.prototype, 'name', { value: 'RootError', configurable: true, writable: true });
  }

  constructor(code: RootErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.code = code;
  }
}

/** "Expected momentum to be in [0, 1), got 1.2" */
export function expected(name: string, requirement: string, got: unknown): RootError {
  return new RootError('ERR_INVALID_ARGUMENT', `Expected ${name} to be ${requirement}, got ${describe(got)}`);
}

/** A value in a few words, for the end of a message. */
export function describe(value: unknown): string {
  try {
    return describeAny(value);
  } catch {
    // Proxies, getters and names of classes may do anything.
    return 'a value that cannot be described';
  }
}

function describeAny(value: unknown): string {
  if (typeof value === 'string') return JSON.stringify(value.length > 60 ? `${value.slice(0, 60)}…` : value);
  if (typeof value === 'function') return value.name === '' ? 'a function' : `the function ${cut(value.name)}`;
  if (Array.isArray(value)) return describeArray(value);
  if (ArrayBuffer.isView(value)) {
    return `${kind(value)} of length ${String('length' in value ? value.length : value.byteLength)}`;
  }
  if (typeof value === 'object' && value !== null) return `${/^[AEIOU]/.test(kind(value)) ? 'an' : 'a'} ${kind(value)}`;
  return cut(typeof value === 'bigint' ? `${value}n` : String(value));
}

function describeArray(array: unknown[]): string {
  const simple = array.length <= 8 && array.every((item) => typeof item === 'number');
  return simple ? `[${array.join(', ')}]` : `an array of length ${array.length}`;
}

function kind(object: object): string {
  const tag = Object.prototype.toString.call(object);
  if (tag !== '[object Object]') return cut(tag.slice(8, -1));
  const name: unknown = (object.constructor as { name?: unknown } | undefined)?.name;
  return typeof name === 'string' && name !== '' ? cut(name) : 'Object';
}

/** What comes from a file or a user may be of any length; a message shows this much of it. */
const shown = 200;

export function cut(text: string): string {
  return text.length > shown ? `${text.slice(0, shown)}…` : text;
}

/** A name in quotation marks, for a message. */
export function quote(name: string): string {
  return printable(JSON.stringify(cut(name)));
}

/** A text with what could steer a terminal written out: control characters, and those that turn the direction. */
export function printable(text: string): string {
  // eslint-disable-next-line no-control-regex
  return text.replace(/[\u0000-\u001f\u007f-\u009f\u200e\u200f\u2028-\u202e\u2066-\u2069]/g, (letter) => {
    return `\\u${letter.charCodeAt(0).toString(16).padStart(4, '0')}`;
  });
}

/** `"a", "b" and 3 more` */
export function enumerate(names: readonly string[], most = 5): string {
  const first = names.slice(0, most).map(quote);
  const rest = names.length - first.length;
  return rest > 0 ? `${first.join(', ')} and ${rest} more` : first.join(', ');
}

/** Returns the message of what was thrown. It need not be an Error of this realm, or an Error at all. */
export function messageOf(thrown: unknown): string {
  return (thrown as { message?: string } | null | undefined)?.message ?? String(thrown);
}
