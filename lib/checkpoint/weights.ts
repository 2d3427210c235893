import { addon, guard } from '../binding.js';
import { describe, expected, quote } from '../errors.js';
import type { Parameter } from '../parameter.js';
import { isRecord } from '../validate.js';
import { withFile } from './contents.js';
import { checkpointError } from './format.js';
import type { Piece, SafetensorsFile } from './reader.js';

/** The tensor of a file that a parameter takes its values from. */
export interface WeightSource {
  readonly tensor: string;
  /** Whether the parameter is the transpose of the tensor, which then has two dimensions. */
  readonly transpose?: boolean | undefined;
}

/** Returns where a parameter's values come from: a tensor by its name, or null for a parameter that stays as it is. */
export type WeightMap = (name: string, shape: readonly number[]) => string | WeightSource | null;

interface Place {
  readonly parameter: Parameter;
  readonly transpose: boolean;
}

/**
 * Reads weights into parameters' data. The file is read twice: all of it is checked before the first value is written.
 * @param begin is called after the checks
 * @param dataOf returns a parameter's array
 * @returns the names of the file's tensors that no parameter took
 * @throws RootError ERR_CHECKPOINT, ERR_INVALID_ARGUMENT
 */
export async function readWeights(
  path: string,
  parameters: readonly Parameter[],
  map: WeightMap,
  begin: () => void,
  dataOf: (parameter: Parameter) => Float32Array,
): Promise<string[]> {
  return withFile(path, undefined, async (file) => {
    const places = placesIn(file, path, parameters, map);
    for await (const piece of file.pieces(places.keys())) checkFinite(path, piece);
    begin();
    for await (const piece of file.pieces(places.keys())) {
      checkFinite(path, piece); // the file may have changed
      for (const place of places.get(piece.name)!) write(place, dataOf(place.parameter), piece);
    }
    await file.checkUnchanged();
    return [...file.tensors.keys()].filter((name) => !places.has(name));
  });
}

/** The parameters that take a tensor, by its name. Tied weights are one tensor of several parameters. */
function placesIn(
  file: SafetensorsFile,
  path: string,
  parameters: readonly Parameter[],
  map: WeightMap,
): Map<string, Place[]> {
  const places = new Map<string, Place[]>();
  const missing: string[] = [];
  for (const parameter of parameters) {
    const source = checkSource(map(parameter.name, parameter.shape), parameter);
    if (source === null) continue;
    const { tensor, transpose } = source;
    const there = file.tensors.get(tensor)?.shape;
    if (there === undefined) {
      missing.push(`${quote(parameter.name)} has no tensor ${quote(tensor)}`);
      continue;
    }
    const read = transpose ? there.toReversed() : there;
    if (JSON.stringify(read) !== JSON.stringify(parameter.shape) || (transpose && there.length !== 2)) {
      const got = `${describe(there)}${transpose ? ', transposed' : ''}`;
      missing.push(`${quote(parameter.name)} is ${describe(parameter.shape)}, tensor ${quote(tensor)} is ${got}`);
      continue;
    }
    places.set(tensor, [...(places.get(tensor) ?? []), { parameter, transpose }]);
  }
  if (missing.length > 0) {
    const rest = missing.length > 10 ? [`and ${missing.length - 10} more`] : [];
    throw checkpointError([`${path} does not fit these parameters:`, ...missing.slice(0, 10), ...rest].join('\n- '));
  }
  return places;
}

function checkSource(source: unknown, { name }: Parameter): { tensor: string; transpose: boolean } | null {
  if (source === null) return null;
  if (typeof source === 'string') return { tensor: source, transpose: false };
  const { tensor, transpose = false } = isRecord(source) ? source : {};
  if (typeof tensor === 'string' && typeof transpose === 'boolean') return { tensor, transpose };
  throw expected(`map(${quote(name)})`, "a tensor's name, { tensor, transpose } or null", source);
}

function checkFinite(path: string, { name, values }: Piece): void {
  if (guard(() => addon().areFinite(values, false))) return;
  throw checkpointError(`Expected tensor ${quote(name)} of ${path} to be finite in float32`);
}

function write({ parameter, transpose }: Place, data: Float32Array, { offset, values }: Piece): void {
  if (!transpose) {
    data.set(values, offset);
    return;
  }
  const [rows = 1, columns = 1] = parameter.shape;
  let [row, column] = [offset % rows, Math.floor(offset / rows)];
  const { length } = values;
  for (let i = 0; i < length; i++) {
    data[row * columns + column] = values[i]!;
    if (++row < rows) continue;
    row = 0;
    column++;
  }
}
