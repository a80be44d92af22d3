// A model that was read, in memory and ready to run on ONNX Runtime.
import { compilePoint } from "../../shared/steering.ts";
import type { KnownModel, Model } from "./model.ts";
import { Encoders } from "./sae-encoder.ts";
import { Scheduler } from "./scheduler.ts";
import { CHUNK, DecoderSession } from "./session.ts";
import { openBlocks } from "./sidecar.ts";

/** A model with what computes it. */
export interface OpenModel extends Model {
  readonly session: DecoderSession;
}

/**
 * Loads the weights and proves that edits reach them.
 * @throws Error naming tensors that are missing, or the boundary whose edits change nothing.
 */
export async function openModel(known: KnownModel, threads: number): Promise<OpenModel> {
  const { slots, cacheLength } = known.plan;
  const chunk = chunkOf(known.plan.weightBytes);
  const blocks = known.storage === "q8" ? await openBlocks(known.family, known.checkpoint) : undefined;
  const session = new DecoderSession(known.family, known.checkpoint, { slots, threads, cacheLength, chunk, blocks });
  await selfTest(session, known.info.id);
  const scheduler = new Scheduler(session);
  const encoders = new Encoders(threads);
  const close = async () => {
    await scheduler.close();
    await encoders.close();
    session.close();
  };
  return { ...known, session, scheduler, encoders, close };
}

/** Decoding rows wait for a new prompt piece by piece: the larger the model, the shorter a piece. A property of the model alone. */
const chunkOf = (weightBytes: number): number => (weightBytes < 2e9 ? CHUNK : weightBytes < 6e9 ? CHUNK / 2 : CHUNK / 4);

/** A sentinel edit at every boundary must change the logits: a model whose hooks are not connected is refused, never served. */
async function selfTest(session: DecoderSession, id: string): Promise<void> {
  const { layers, width } = session.shape;
  const direction = Float32Array.from({ length: width }, (_, i) => (i % 2 === 0 ? 1 : -0.5));
  const logits = async () => (await session.prefill(0, [0], 0, [0])).logits(0).slice();
  session.edits.set(0, new Map());
  const plain = await logits();
  if (!plain.every(Number.isFinite)) throw new Error(`model '${id}' computes logits that are not finite: its weights are damaged`);
  for (let boundary = 0; boundary <= layers; boundary++) {
    session.edits.set(0, new Map([[boundary, compilePoint([{ method: "SIMPLE_ADDITIVE", strength: 10, direction }], width)]]));
    const edited = await logits();
    if (edited.every((value, i) => value === plain[i]))
      throw new Error(`model '${id}': an edit at boundary ${boundary} of the residual stream changes nothing`);
  }
  session.edits.set(0, new Map());
}
