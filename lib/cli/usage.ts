import { parseArgs, type ParseArgsConfig } from 'node:util';
import { messageOf } from '../errors.js';

/** A wrong use of the command. The command prints the message and ends with status 2. */
export class UsageError extends Error {}

type Options = NonNullable<ParseArgsConfig['options']>;
type Parsed<T extends Options> = ReturnType<typeof parseArgs<{ options: T; allowPositionals: true }>>;

/** @throws UsageError */
export function parseCommand<const T extends Options>(args: string[], options: T): Parsed<T> {
  try {
    return parseArgs({ args, options, allowPositionals: true });
  } catch (cause) {
    // Node goes on with advice about positional arguments, which is not about this command.
    throw new UsageError(`${messageOf(cause).split('. ')[0]!.replace(/\.$/, '')}.`, { cause });
  }
}
