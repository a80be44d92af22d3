// Texts of a generation that are read without their edits when it has ended (`compare` of /generate).
import type { GenerateResult } from "../../shared/protocol.ts";
import type { Generation } from "./generation.ts";
import { type KnownModel, type Model, planEdits } from "./model.ts";
import { scoreTexts } from "./score.ts";

/** The generation's result with what every row's text is to the model without its edits. @throws TillerError as /score. */
export async function compareRows(
  model: Model,
  { request, rows, probes = [] }: Generation,
  result: GenerateResult,
  modelOf: (id: string) => KnownModel,
  signal: AbortSignal,
): Promise<GenerateResult> {
  const written = rows.filter(({ generated }) => generated.length > 0);
  const texts = written.map(({ name, prompt, generated, kept }) => {
    const edits = request.rows.find((row) => row.name === name)?.edits ?? [];
    return {
      ...{ prompt, text: generated, steered: kept?.logProbs, below: kept?.below(generated.length) },
      edits: planEdits(model, edits, prompt, request.steer_special_tokens, modelOf),
    };
  });
  const { items } = await scoreTexts(
    model,
    { request: { compare: true, logprobs: 0, deadline_ms: request.deadline_ms }, texts, probes },
    signal,
  );
  return {
    ...result,
    rows: result.rows.map((row) => {
      const { plain, values = [] } = items[written.findIndex(({ name }) => name === row.name)] ?? {};
      return { ...row, compared: plain === undefined ? null : { plain, values } };
    }),
  };
}
