// What a sweep suggests, and the call that steers so.
import type { JobOf } from "../jobs/store.ts";
import type { SweepCell, SweepResult } from "./contract.ts";
import { measureOf } from "./plot-data.ts";

interface SuggestionProps {
  readonly job: JobOf<"sweep">;
  readonly result: SweepResult;
  readonly origin: string;
  /** Without the call. */
  readonly brief: boolean;
}

export const Suggestion = ({ job, result, origin, brief }: SuggestionProps) => {
  const { suggested, maxPerplexityRatio } = result;
  const cell = result.cells[suggested?.cell ?? -1];
  if (suggested === null || cell === undefined) {
    return (
      <p class="prompt">
        {measureOf(result).name === "activation"
          ? "Nothing is suggested: without a scorer nothing is a success."
          : `Nothing is suggested: no cell has more success than the baseline and a perplexity of at most ${maxPerplexityRatio} times the baseline's.`}
      </p>
    );
  }
  const known = result.columns[cell.column]?.feature !== undefined;
  return (
    <section>
      <h2>Suggested</h2>
      <p class="prompt">{suggested.sentence}</p>
      {brief ? null : (
        <>
          {known ? null : <p>Put the numbers of your direction where the dots are:</p>}
          <pre>{callOf(job, result, cell, origin)}</pre>
        </>
      )}
    </section>
  );
};

/** Settings that a steer has under the same name, where they are not what a steer has anyhow. */
const DEFAULTS = { positions: "all", schedule: "constant", top_p: 1, top_k: 0, presence_penalty: 0, steer_special_tokens: true };

/** The cell as a curl; its first prompt and seed. */
function callOf(
  { plan }: JobOf<"sweep">,
  { columns, modelId }: SweepResult,
  { column, strength, method }: SweepCell,
  origin: string,
): string {
  const { body } = plan.sweep;
  const { feature, hookName } = columns[column] ?? {};
  const [prompt = ""] = body.prompts;
  const messages = [{ role: "user", content: prompt }];
  const others = Object.entries(DEFAULTS).filter(([name, usual]) => body[name as keyof typeof DEFAULTS] !== usual);
  const asked = {
    ...(body.chat ? { defaultChatMessages: messages, steeredChatMessages: messages } : { prompt }),
    ...{ modelId, features: feature === undefined ? [] : [{ ...feature, strength }] },
    ...(feature === undefined ? { vectors: [{ vector: ["..."], hookName, strength }] } : {}),
    ...{ temperature: body.temperature, n_tokens: body.n_tokens, freq_penalty: body.freq_penalty, seed: body.seeds[0] },
    ...{ strength_multiplier: 1, steer_method: method },
    ...(body.chat ? { steer_special_tokens: body.steer_special_tokens } : {}),
    ...Object.fromEntries(others.map(([name]) => [name, body[name as keyof typeof DEFAULTS]])),
    ...(body.stop.length === 0 || body.chat ? {} : { stop: body.stop }),
  };
  // An apostrophe inside an apostrophe's quotes, as a shell has it.
  const json = JSON.stringify(asked).replaceAll("'", "'\\''");
  return `curl -s ${origin}/api/steer${body.chat ? "-chat" : ""} -H 'content-type: application/json' -d '${json}'`;
}
