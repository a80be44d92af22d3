// What POST /rows answers: decoder rows as they steer.
import { encodeFloat32 } from "../../shared/base64.ts";
import type { RowsRequest, RowsResult } from "../../shared/features.ts";
import type { KnownModel } from "./model.ts";
import { newPace } from "./pace.ts";

/** @throws TillerError `feature_not_found` naming what there is; `invalid_request` when a row is zero or not finite. */
export async function readDecoderRows(
  { sources }: KnownModel,
  { model, source, indexes, deadline_ms }: RowsRequest,
  signal: AbortSignal,
): Promise<RowsResult> {
  const pace = newPace(signal, deadline_ms);
  const { point } = sources.features(source).info;
  const rows: string[] = [];
  for (const index of indexes) {
    // Where a file has latents as columns, a row takes one read for each of its values.
    await pace();
    rows.push(encodeFloat32(sources.direction({ model, source, index }).direction));
  }
  return { point, rows };
}
