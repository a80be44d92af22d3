// Sweeps of strengths: how a promised one is begun, what its answer shows, and what can be steered with afterwards.
import { type APIEmbed, ButtonStyle, ComponentType } from "discord-api-types/v10";
import type { SteerBody, SweepBody, SweepCell, SweepResult } from "../../shared/client-types.ts";
import type { Answer, BotRoom } from "./asked.ts";
import { logFailure } from "./failure.ts";
import type { Growing, Keeper, Promised, SweepView } from "./promised.ts";
import { button, COLOUR, type Named, pressId, row, stopRow, type View } from "./render.ts";
import { cut, formatNumber, formatStrength, neutral, oneLine, table } from "./text.ts";

/** Rows of the table of cells, and characters of a text: as many as there is room for. */
const SHOWN = { cells: 12, text: 600, prompt: 600, sentence: 800 } as const;
const PLOT = "dose-response.png";
const KEPT_S = 30 * 24 * 3600;

/** What the button of a sweep steers with, as a note. */
export interface SuggestedSteer {
  readonly body: SteerBody;
  readonly view: View;
}
export const suggestedKey = (sweepId: string): string => `sweep:${sweepId}`;

export const newSweeps = (room: BotRoom): Keeper<"sweep"> => ({
  start: async (promised, user) => ({ promised, job: await user.startSweep(promised.body, promised.id) }),
  growing: ({ view }, now) => sweepingMessage(view, now),
  async done(promised, { id, result }, user) {
    if (result === null) return { content: "The sweep was stopped." };
    const suggested = suggestedSteer(promised, result);
    if (suggested !== undefined) await room.tiller.notes.put(suggestedKey(id), suggested, { ttlSeconds: KEPT_S });
    // The numbers are worth posting without their picture.
    const plot = await user.sweepPlot(result.id).catch((error: unknown) => logFailure(room, "plot", promised.id, error));
    return sweptMessage(promised, result, { id, suggested, plot: plot ?? undefined });
  },
});

type Asked = Pick<Promised<"sweep">, "view" | "body">;

const titleOf = ({ modelId, feature }: SweepView): string => oneLine(`${modelId}: how hard to steer with ${feature.label}`, 256);
const promptOf = ({ prompt }: SweepView): string => cut(`**Prompt** ${neutral(prompt)}`, SHOWN.prompt);

export function sweepingMessage(view: SweepView, { state, jobId, done, of }: Growing): Answer {
  const text = state === "queued" ? "Waits for its turn" : `Writing: ${done} of ${of} texts`;
  return {
    embeds: [{ title: titleOf(view), description: promptOf(view), color: COLOUR, footer: { text } }],
    components: [stopRow(jobId, view.ownerId)],
  };
}

/** The suggested cell as a steer; undefined where there is none, or where it is not at the direction's own layer. */
export function suggestedSteer({ body, view }: Asked, { suggested, cells, columns }: SweepResult): SuggestedSteer | undefined {
  const cell = suggested === null ? undefined : cells[suggested.cell];
  if (cell === undefined || columns[cell.column]?.layer !== layerOf(view.feature)) return undefined;
  const { label, ...feature }: Named = { ...view.feature, strength: cell.strength };
  return {
    view: { prompt: view.prompt, modelId: view.modelId, ownerId: view.ownerId, features: [{ ...feature, label }] },
    body: {
      ...{ prompt: view.prompt, modelId: view.modelId, features: [feature], strength_multiplier: 1, n_logprobs: 0 },
      ...{ temperature: body.temperature, freq_penalty: body.freq_penalty, n_tokens: body.n_tokens },
      ...{ seed: body.seeds[0] ?? 0, steer_method: cell.method },
    },
  };
}

/** "3-tales-res" is of layer 3. */
const layerOf = ({ layer }: Named): number => Number.parseInt(layer, 10);

interface Shown {
  /** Of the job. */
  readonly id: string;
  readonly suggested: SuggestedSteer | undefined;
  readonly plot: Uint8Array | undefined;
}

export function sweptMessage({ view, body }: Asked, result: SweepResult, shown: Shown): Answer {
  const { id, suggested, plot } = shown;
  const best = result.suggested === null ? undefined : result.cells[result.suggested.cell];
  const [plain] = result.baseline.rows;
  const [steered] = best?.rows ?? [];
  const embed: APIEmbed = {
    ...{ title: titleOf(view), url: result.url, color: COLOUR },
    description: [promptOf(view), suggestionOf(view, body, result, suggested !== undefined), ...failuresOf(result)].join("\n\n"),
    fields: [
      { name: tableName(result), value: cellsTable(result) },
      ...(plain === undefined || steered === undefined || best === undefined
        ? []
        : [textField("Not steered", plain.text), textField(`At ${formatStrength(best.strength)}`, steered.text)]),
    ],
    ...(plot === undefined ? {} : { image: { url: `attachment://${PLOT}` } }),
    footer: { text: `${body.seeds.length} texts of ${body.n_tokens} tokens in every row · ${body.methods.join(", ")} · ${result.id}` },
  };
  const steer =
    suggested === undefined || best === undefined
      ? []
      : [
          button(
            `Steer at ${formatStrength(best.strength)}`,
            pressId({ verb: "sweep-steer", about: id, ownerId: view.ownerId }),
            ButtonStyle.Primary,
          ),
        ];
  return {
    embeds: [embed],
    components: [row(...steer, { type: ComponentType.Button, style: ButtonStyle.Link, label: "Open", url: result.url })],
    files: plot === undefined ? [] : [{ name: PLOT, bytes: plot, type: "image/png" }],
  };
}

function suggestionOf(view: SweepView, body: SweepBody, { suggested, cells, columns, maxPerplexityRatio }: SweepResult, canSteer: boolean) {
  if (body.scorer === undefined) return "Nothing says what success is, so no strength is suggested: give `words` that should come.";
  if (suggested === null)
    return `No strength is suggested: none made the words come with a perplexity within ${maxPerplexityRatio} times the plain texts'.`;
  const sentence = cut(neutral(suggested.sentence), SHOWN.sentence);
  const layer = columns[cells[suggested.cell]?.column ?? 0]?.layer;
  return canSteer
    ? sentence
    : `${sentence}\n\`/steer\` takes a direction at its own layer, ${layerOf(view.feature)}: keep it at layer ${layer} to steer there.`;
}

/** Other cells are whole: what failed is said, and why the first did. */
function failuresOf({ cells }: SweepResult): string[] {
  const failed = cells.flatMap(({ error }) => error ?? []);
  return failed.length === 0 ? [] : [cut(neutral(`${failed.length} of ${cells.length} cells have no texts: ${failed[0]}`), SHOWN.sentence)];
}

const textField = (name: string, text: string) => ({
  ...{ name, value: cut(neutral(text), SHOWN.text).trim() || "*nothing*", inline: true },
});

const tableName = ({ cells }: SweepResult): string =>
  cells.length > SHOWN.cells ? `The best ${SHOWN.cells} of ${cells.length} cells` : "Cells";

/** In the sweep's own order; of more than there is room for those with the most success that disturb the model least. */
function cellsTable({ cells, columns, baseline, suggested, maxPerplexityRatio }: SweepResult): string {
  const isSuggested = (cell: SweepCell) => suggested !== null && cells[suggested.cell] === cell;
  const ratio = ({ metrics }: SweepCell) => metrics?.perplexityRatio ?? Number.POSITIVE_INFINITY;
  const rank = (cell: SweepCell): readonly number[] => [
    ...[isSuggested(cell) ? 1 : 0, ratio(cell) <= maxPerplexityRatio ? 1 : 0, cell.metrics?.success ?? 0],
    -Math.min(ratio(cell), Number.MAX_VALUE),
  ];
  const best = new Set(cells.toSorted((a, b) => compare(rank(b), rank(a))).slice(0, SHOWN.cells));
  const hasLayers = new Set(columns.map(({ layer }) => layer)).size > 1;
  const line = (strength: string, layer: string, { success, perplexityRatio, kl, dist2 }: NonNullable<SweepCell["metrics"]>) => [
    ...[strength, ...(hasLayers ? [layer] : [])],
    ...[formatShare(success), formatNumber(perplexityRatio), formatNumber(kl), formatNumber(dist2)],
  ];
  return table([
    ["strength", ...(hasLayers ? ["layer"] : []), "success", "perpl. ×", "KL", "dist-2"],
    line("plain", "", { ...baseline.metrics, perplexityRatio: 1, kl: 0 }),
    ...cells
      .filter((cell) => best.has(cell))
      .map((cell) => {
        const strength = `${isSuggested(cell) ? "→ " : ""}${formatStrength(cell.strength)}`;
        return line(strength, String(columns[cell.column]?.layer ?? ""), cell.metrics ?? NO_METRICS);
      }),
  ]);
}

const NO_METRICS = { success: null, perplexity: null, perplexityRatio: null, kl: null, dist2: null, activation: null } as const;

const formatShare = (share: number | null): string => (share === null ? "–" : `${Math.round(share * 100)} %`);

/** Lists of numbers by their first difference. */
function compare(a: readonly number[], b: readonly number[]): number {
  const at = a.findIndex((value, i) => value !== b[i]);
  return at < 0 ? 0 : (a[at] ?? 0) - (b[at] ?? 0);
}
