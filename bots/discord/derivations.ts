// Vectors made of texts: how a promised derivation is begun, and what its answer shows.
import type { APIEmbed } from "discord-api-types/v10";
import type { Derived, DerivedLayer } from "../../shared/client-types.ts";
import { DIRECTION_LIMITS } from "../../shared/directions.ts";
import type { Answer, BotRoom } from "./asked.ts";
import { formatPlace } from "./directions.ts";
import type { AttachedFile, Growing, Keeper, Promised } from "./promised.ts";
import { COLOUR, stopRow } from "./render.ts";
import { cut, formatNumber, formatStrength, neutral, oneLine, table } from "./text.ts";

type View = Promised<"derive">["view"];

/** Rows of the table of layers, and latents: as many as a field has room for. */
const SHOWN = { layers: 16, latents: 10 } as const;
const FIELD_CHARS = 1024;

export function newDerivations({ readAttachment }: Pick<BotRoom, "readAttachment">): Keeper<"derive"> {
  const read = async ({ name, url }: AttachedFile) => ({ name, bytes: await readAttachment(url, DIRECTION_LIMITS.bytes) });
  return {
    async start(promised, user) {
      const { fields, files } = promised.body;
      const [positive, negative] = await Promise.all([read(files.positive), read(files.negative)]);
      return { promised, job: await user.vectors.derive(fields, { positive, negative }, promised.id) };
    },
    growing: ({ view }, now) => derivingMessage(view, now),
    done: async ({ view }, { id, result }) =>
      result === null ? { content: "Stopped: no vector was kept." } : derivedMessage(view, id, result),
  };
}

const titleOf = ({ modelId, name }: View): string => oneLine(`${modelId}: ${name}`, 256);

export function derivingMessage(view: View, { state, jobId, done, of }: Growing): Answer {
  const text = state === "queued" ? "Waits for its turn" : `Reading: ${done} of ${of} texts`;
  return {
    embeds: [{ title: titleOf(view), color: COLOUR, footer: { text } }],
    components: [stopRow(jobId, view.ownerId)],
  };
}

/** @param id of the job, by which the file is called. */
export function derivedMessage(view: View, id: string, { vectors, report }: Derived): Answer {
  const { method, layers, bestLayer, counts } = report;
  const best = layers.find(({ layer }) => layer === bestLayer);
  const [kept] = vectors;
  if (best === undefined || kept === undefined) throw new Error("a derivation without its vector");
  const place = formatPlace({ layer: kept.source, index: kept.index });
  const { latents = [] } = best;
  const sides = Object.entries(counts).map(
    ([side, { texts, heldOut, tokens }]) => `${texts} ${side} texts (${tokens} tokens) and ${heldOut} held out`,
  );
  const embed: APIEmbed = {
    ...{ title: titleOf(view), url: kept.url, color: COLOUR },
    description: `Steer with it: \`/steer vector: ${place}\`, or find how hard: \`/sweep vector: ${place}\``,
    fields: [
      { name: "Place", value: `\`${place}\` of ${neutral(view.modelId)}, ${neutral(best.hookName)}` },
      { name: "Suggested strength", value: formatStrength(best.suggestedStrength), inline: true },
      { name: "AUC on held-out texts", value: aucOf(best), inline: true },
      { name: layers.length > 1 ? "Best layer" : "Layer", value: String(bestLayer), inline: true },
      ...(layers.length > 1 ? [{ name: layersName(layers), value: layersTable(layers, bestLayer) }] : []),
      ...(latents.length > 0 ? [{ name: `Latents (${latents.length})`, value: latentsOf(latents) }] : []),
    ],
    footer: { text: `${method} · ${sides.join(", ")} · ${kept.visibility}` },
  };
  const isWhole = layers.length <= SHOWN.layers && latents.length <= SHOWN.latents;
  return { embeds: [embed], files: isWhole ? [] : [{ name: `derivation-${id}.json`, text: JSON.stringify(report, null, 2) }] };
}

const aucOf = ({ aucHeldOut }: DerivedLayer): string =>
  aucHeldOut === null ? "no text was held out" : `${formatNumber(aucHeldOut, 3)} (0.5 is chance)`;

const layersName = ({ length }: readonly DerivedLayer[]): string =>
  length > SHOWN.layers ? `Layers (the best ${SHOWN.layers} of ${length})` : "Layers";

/** In the order of layers; of more than there is room for those that separate best. */
function layersTable(layers: readonly DerivedLayer[], bestLayer: number): string {
  const auc = ({ aucHeldOut, aucTrain }: DerivedLayer) => aucHeldOut ?? aucTrain;
  const first = (layer: DerivedLayer) => (layer.layer === bestLayer ? 1 : 0);
  const shown = layers
    .toSorted((a, b) => first(b) - first(a) || auc(b) - auc(a) || (b.effect ?? 0) - (a.effect ?? 0))
    .slice(0, SHOWN.layers)
    .toSorted((a, b) => a.layer - b.layer);
  return table([
    ["layer", "AUC", "effect", "strength"],
    ...shown.map((each) => [
      `${each.layer === bestLayer ? "→ " : ""}${each.layer}`,
      ...[formatNumber(auc(each), 3), formatNumber(each.effect), formatStrength(each.suggestedStrength)],
    ]),
  ]);
}

/** The first that were chosen: those that tell the sides apart most. */
function latentsOf(latents: NonNullable<DerivedLayer["latents"]>): string {
  const lines = latents
    .slice(0, SHOWN.latents)
    .map(
      ({ index, label, value }) => `\`${index}\` ${formatStrength(value)}${label === null ? "" : ` ${cut(neutral(oneLine(label)), 80)}`}`,
    );
  const more = latents.length - lines.length;
  return cut([...lines, ...(more > 0 ? [`and ${more} more`] : [])].join("\n"), FIELD_CHARS);
}
