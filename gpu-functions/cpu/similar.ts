// What POST /similar answers: the rows of a source whose cosine with a vector is greatest. The file is read in parts, so that a source
// of any size needs no memory and decode goes on meanwhile.
import { decodeFloat32 } from "../../shared/base64.ts";
import { TillerError } from "../../shared/errors.ts";
import type { SimilarRequest, SimilarResult } from "../../shared/features.ts";
import type { KnownModel } from "./model.ts";
import { newPace, type Pace } from "./pace.ts";
import type { LatentMatrix } from "./sae.ts";
import { readRows } from "./safetensors.ts";

/** Values of one part: about a millisecond's work. */
const PART = 2 ** 18;

/** @throws TillerError `feature_not_found` for an unknown source, `invalid_request` for a vector that has no direction or another width. */
export async function findSimilar({ sources, shape }: KnownModel, request: SimilarRequest, signal: AbortSignal): Promise<SimilarResult> {
  const { decoder, info } = sources.features(request.source);
  const vector = readVector(request.vector, shape.width, info.id);
  const pace = newPace(signal, request.deadline_ms);
  const cosines = await (decoder.latentsFirst ? cosinesOfRows : cosinesOfColumns)(decoder, info.width, vector, pace);
  return { items: greatest(cosines, request.top_k) };
}

/** The vector at length one. */
function readVector(text: string, width: number, source: string): Float64Array {
  const values = decodeFloat32(text);
  const refuse = (reason: string) => new TillerError("invalid_request", `vector: ${reason}.`);
  if (values === undefined) throw refuse(`a vector is base64 of little-endian float32, ${width} values for source '${source}'`);
  if (values.length !== width) throw refuse(`it has ${values.length} values; the rows of source '${source}' have ${width}`);
  if (!values.every(Number.isFinite)) throw refuse("it has a value that is not a finite number");
  const norm = Math.hypot(...values);
  if (norm === 0) throw refuse("it is zero and lies near nothing");
  return Float64Array.from(values, (value) => value / norm);
}

async function cosinesOfRows({ file, name }: LatentMatrix, latents: number, vector: Float64Array, pace: Pace): Promise<Float64Array> {
  const width = vector.length;
  const cosines = new Float64Array(latents);
  const rows = Math.max(1, Math.floor(PART / width));
  for (let start = 0; start < latents; start += rows) {
    await pace();
    const count = Math.min(rows, latents - start);
    const values = readRows(file, name, start, count);
    for (let row = 0; row < count; row++) {
      let [dot, squares] = [0, 0];
      for (let d = 0, at = row * width; d < width; d++, at++) {
        const value = values[at] as number;
        dot += value * (vector[d] as number);
        squares += value * value;
      }
      cosines[start + row] = dot / Math.sqrt(squares);
    }
  }
  return cosines;
}

async function cosinesOfColumns({ file, name }: LatentMatrix, latents: number, vector: Float64Array, pace: Pace): Promise<Float64Array> {
  const [dots, squares] = [new Float64Array(latents), new Float64Array(latents)];
  const rows = Math.max(1, Math.floor(PART / latents));
  for (let start = 0; start < vector.length; start += rows) {
    await pace();
    const count = Math.min(rows, vector.length - start);
    const values = readRows(file, name, start, count);
    for (let row = 0, at = 0; row < count; row++) {
      const factor = vector[start + row] as number;
      for (let i = 0; i < latents; i++, at++) {
        const value = values[at] as number;
        dots[i] = (dots[i] as number) + factor * value;
        squares[i] = (squares[i] as number) + value * value;
      }
    }
  }
  return dots.map((dot, i) => dot / Math.sqrt(squares[i] as number));
}

/** The greatest first, the lower index first among equals. A row that is zero or not finite has no cosine. */
function greatest(cosines: Float64Array, count: number): SimilarResult["items"] {
  const found: SimilarResult["items"] = [];
  cosines.forEach((cosine, index) => {
    if (!Number.isFinite(cosine) || (found.length === count && cosine <= (found.at(-1)?.cosine ?? 0))) return;
    if (found.length === count) found.pop();
    let at = found.length;
    while (at > 0 && (found[at - 1]?.cosine ?? 0) < cosine) at--;
    found.splice(at, 0, { index, cosine });
  });
  return found;
}
