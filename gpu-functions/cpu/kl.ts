// What 8-bit weights cost a model: the Kullback-Leibler divergence of its predictions from those in float32, on a fixed text.
import { openDirectory } from "./directory.ts";
import { klDivergence, type Prediction } from "./sampler.ts";
import { CHUNK, DecoderSession, type SessionSettings } from "./session.ts";
import { openBlocks } from "./sidecar.ts";
import { loadTokenizer } from "./tokenizer.ts";

/** The fixed text: prose, dialogue, numbers and code, so that more than one kind of token is met. */
export const KL_TEXT = `Once upon a time there was a lighthouse keeper who wrote down every ship that passed. "Forty-one today," she said, "and the \
fog is not even gone." In 1887 the harbour had 3 piers and 12 cranes; a century later it had none, and the sea had taken back the road. \
Measurements were kept in a table: date, height of the tide in metres, number of vessels. Anyone who wants the mean can compute it:

def mean(values):
    return sum(values) / len(values)

The children of the village liked the story best when it ended well, so the keeper found her brother's boat in the bay, and they \
went home together before it was dark.`;

export interface KlResult {
  /** Nats per token. */
  readonly mean: number;
  readonly max: number;
  /** Share of the tokens after which both forms expect the same next token most. */
  readonly agreement: number;
  readonly tokens: number;
}

/**
 * KL(float32 || 8 bit) of the next-token distribution after every token of the texts, each cut to the model's context. Both forms are
 * loaded, one after the other: float32 needs about eight bytes of memory for each weight.
 */
export async function measureKl(directory: string, texts: readonly string[] = [KL_TEXT], threads = 1): Promise<KlResult> {
  const { model, checkpoint } = openDirectory(directory);
  const tokenizer = loadTokenizer(directory);
  const sequences = texts.map((text) => tokenizer.encodePrompt(text).slice(0, model.shape.context));
  const cacheLength = Math.max(...sequences.map((ids) => ids.length));
  const settings = { slots: 1, threads, cacheLength };
  const visit = async (how: SessionSettings, each: (prediction: Prediction, index: number) => void) => {
    const session = new DecoderSession(model, checkpoint, how, "plain");
    try {
      let index = 0;
      for (const ids of sequences) {
        for (let start = 0; start < ids.length; start += CHUNK) {
          const chunk = ids.slice(start, start + CHUNK);
          const step = await session.prefill(
            0,
            chunk,
            start,
            chunk.map((_, t) => t),
          );
          for (let t = 0; t < chunk.length; t++) each(step.prediction(t), index++);
        }
      }
    } finally {
      session.close();
    }
  };
  const exact: Prediction[] = [];
  await visit(settings, (prediction) => exact.push(structuredClone(prediction)));
  const divergences: number[] = [];
  let agreeing = 0;
  await visit({ ...settings, blocks: await openBlocks(model, checkpoint) }, (prediction, index) => {
    const wanted = exact[index] as Prediction;
    divergences.push(klDivergence(wanted, prediction));
    if (wanted.top[0]?.id === prediction.top[0]?.id) agreeing++;
  });
  const sum = divergences.reduce((a, b) => a + b, 0);
  const tokens = divergences.length;
  return { mean: sum / tokens, max: Math.max(...divergences), agreement: agreeing / tokens, tokens };
}
