// The calls that read texts and generate none: tokens, one feature's activations, all of a source's, and search by what is active.
import { createRoute, type z } from "@hono/zod-openapi";
import type { Context } from "hono";
import { boundaryOf, formatPoint } from "../../shared/address.ts";
import { encodeFloat32 } from "../../shared/base64.ts";
import { TillerError } from "../../shared/errors.ts";
import { type ModelInfo, LIMITS as PROTOCOL } from "../../shared/protocol.ts";
import { errorResponses } from "../answers.ts";
import type { App, Room } from "../app.ts";
import { readBody } from "../body.ts";
import { read } from "../engine.ts";
import { describeFeatures } from "../features/describe.ts";
import { type FeatureAt, placeOf } from "../features/store.ts";
import type { ServedModel } from "../models.ts";
import { CLIENT_GONE, limitHeaders, readingQuotaOf, withQuota } from "../quota.ts";
import { densityFilter, type Found, findSource, sourcesOfSet, toActivation, toSearch, toSourceResult, toTopk } from "../read/answers.ts";
import {
  Activation,
  ActivationBody,
  SearchBody,
  SearchResult,
  SourceAnswer,
  SourceBody,
  TokenizeAnswer,
  TokenizeBody,
  TopkBody,
  TopkResult,
} from "../read/contract.ts";
import type { StoredTest } from "../read/stored.ts";
import { identify, originOf } from "../route.ts";
import { keyOf, pointOf, type SavedVector, type VectorAddress, vectorPoint } from "../vectors/store.ts";
import { testUrl } from "./shares.ts";

/** Asks the model's engine; leaving early ends the work. */
type Ask = <Path extends Parameters<typeof read>[2]>(path: Path, request: object) => ReturnType<typeof read<Path>>;

interface Reading<Body extends z.ZodType> {
  readonly path: string;
  readonly summary: string;
  readonly description: string;
  readonly body: Body;
  readonly answer: z.ZodType;
  readonly modelOf: (body: z.output<Body>) => string;
  /** Refuses what can be refused without the engine. @returns what answers when the quota has been taken. */
  readonly plan: (body: z.output<Body>, model: ModelInfo, help: Help) => Promise<Answer>;
}

type Answer = (ask: Ask) => Promise<unknown>;
/** What readings need besides the engine. */
interface Help {
  /** A vector that the caller may use. @throws TillerError `feature_not_found`. */
  vector(address: VectorAddress): Promise<SavedVector>;
  /** Keeps an activation test under a link. */
  keep(modelId: string, test: StoredTest): Promise<{ readonly id: string; readonly shareUrl: string }>;
  /** Labels of features, and all that is known of them but their texts; by `placeOf`. */
  labels(at: readonly FeatureAt[]): ReturnType<Room["labels"]["of"]>;
  describe(at: readonly FeatureAt[]): ReturnType<typeof describeFeatures>;
}

const listOf = (given: string | readonly string[]): string[] => (typeof given === "string" ? [given] : [...given]);

const tokenize: Reading<typeof TokenizeBody> = {
  path: "/api/tokenize",
  summary: "Tokens of a text",
  description: "Ids and strings as the model reads them.",
  body: TokenizeBody,
  answer: TokenizeAnswer,
  modelOf: ({ modelId }) => modelId,
  plan: async (body, model) => async (ask) => {
    const { ids, tokens } = await ask("/tokenize", { model: model.id, text: body.prompt, add_special_tokens: body.prependBos });
    return {
      tokens: ids,
      tokenStrings: tokens.map(({ token }) => token),
      prependBos: body.prependBos,
      offsets: tokens.map(({ start, end }) => [start, end]),
      special: tokens.map(({ special }) => special),
    };
  },
};

const activation: Reading<typeof ActivationBody> = {
  path: "/api/activation/new",
  summary: "What a feature does on a text",
  description:
    "A latent of an autoencoder gives its activation on every token but BOS; a named direction or a vector the projection of the residual on it, not divided by its length. A list of texts gets a bare list of answers.",
  body: ActivationBody,
  answer: Activation.or(Activation.array()),
  modelOf: (body) => addressOf(body).modelId,
  async plan(body, model, help) {
    const feature = addressOf(body);
    const { modelId, source, index } = feature;
    const { target, latent } = vectorPoint(source)
      ? { target: inlineTarget(await help.vector(feature), model), latent: false }
      : { target: { feature: { model: modelId, source, index } }, latent: isLatent(model, feature) };
    return async (ask) => {
      const { items } = await ask("/activations", { model: modelId, texts: listOf(body.customText), targets: [target] });
      const answers = items.map((item) => {
        // The engine puts BOS first where the model has one; everything else that is special stands in the text.
        const bos = item.tokens[0]?.special === true && (latent || body.ignoreBos);
        return toActivation(item, feature, bos ? 1 : 0);
      });
      const results = answers.map(({ tokens, values }) => ({ tokens, values }));
      const link = body.share ? await help.keep(modelId, { source, index, ignoreBos: body.ignoreBos, results }) : {};
      const linked = answers.map((each) => ({ ...each, ...link }));
      return typeof body.customText === "string" ? linked[0] : linked;
    };
  },
};

function inlineTarget(vector: SavedVector, model: ModelInfo) {
  const point = pointOf(vector);
  boundaryOf(point, model.layers);
  if (vector.values.length !== model.width)
    throw new TillerError("invalid_request", `The vector has ${vector.values.length} values, ${model.id} needs ${model.width}.`);
  return { vector: encodeFloat32(vector.values), point: formatPoint(point) };
}

/** Whether a feature is an autoencoder's latent and no named direction. @throws TillerError `feature_not_found`. */
function isLatent(model: ModelInfo, { source, index }: FeatureAt): boolean {
  const { architecture, width } = findSource(model, source);
  if (index < width) return architecture !== "directions";
  throw new TillerError("feature_not_found", `Source '${source}' has no feature ${index}; its features are 0 to ${width - 1}.`);
}

function addressOf({ feature, neuron }: z.output<typeof ActivationBody>) {
  const given = (neuron ?? feature) as NonNullable<typeof feature>;
  return { modelId: given.modelId, source: (given.layer ?? given.source) as string, index: given.index };
}

const sourceActivations: Reading<typeof SourceBody> = {
  path: "/api/activation/source",
  summary: "All features of a source that are active on a text",
  description: "Every feature with the positions it is active at, BOS left out. Activations are rounded to three decimals.",
  body: SourceBody,
  answer: SourceAnswer,
  modelOf: ({ modelId }) => modelId,
  async plan(body, model) {
    findSource(model, body.source);
    return async (ask) => {
      const request = { model: model.id, source: body.source, texts: listOf(body.customText), top_k: PROTOCOL.topLatents };
      return { results: (await ask("/latents", request)).items.map(toSourceResult) };
    };
  },
};

const topkByToken: Reading<typeof TopkBody> = {
  path: "/api/search-topk-by-token",
  summary: "The most active features of every token",
  description: "A list of texts gets `{results: [{source, results}]}`.",
  body: TopkBody,
  answer: TopkResult,
  modelOf: ({ modelId }) => modelId,
  async plan(body, model, help) {
    findSource(model, body.source);
    const filter = densityFilter(model, [body.source], body.densityThreshold);
    return async (ask) => {
      const { items } = await ask("/latents", {
        ...{ model: model.id, source: body.source, texts: listOf(body.text) },
        ...{ top_k: body.numResults, ignore_bos: body.ignoreBos, ...filter },
      });
      const found = new Set(items.flatMap(({ top }) => top.flatMap((list) => list.map(({ index }) => index))));
      const labels = await help.labels([...found].map((index) => ({ modelId: model.id, source: body.source, index })));
      const results = items.map((item) => toTopk(model, body.source, item, labels));
      return typeof body.text === "string" ? results[0] : { results };
    };
  },
};

const searchAll: Reading<typeof SearchBody> = {
  path: "/api/search-all",
  summary: "The most active features of a text, over the layers of a source set",
  description: "Ranked by their greatest activation, or by the sum at sortIndexes. A list of texts gets `{results: [...]}`.",
  body: SearchBody,
  answer: SearchResult,
  modelOf: ({ modelId }) => modelId,
  async plan(body, model, help) {
    const sources = sourcesOfSet(model, body.sourceSet, body.selectedLayers);
    const filter = densityFilter(model, sources, body.densityThreshold);
    return async (ask) => {
      const texts = listOf(body.text);
      const rank = {
        ...{ top_k: 0, rank: body.numResults, ignore_bos: body.ignoreBos, ...filter },
        ...(body.sortIndexes.length === 0 ? {} : { rank_by: body.sortIndexes }),
      };
      const found = await Promise.all(sources.map((source) => ask("/latents", { model: model.id, source, texts, ...rank })));
      const results = texts.map((_, i) => {
        const items = sources.flatMap((source, s) => {
          const item = found[s]?.items[i];
          return item === undefined ? [] : [[source, item] as const];
        });
        return toSearch(model, items, body.sortIndexes, body.numResults);
      });
      const places = (each: Found) => each.result.map(({ layer, index }) => ({ modelId: model.id, source: layer, index: Number(index) }));
      const known = await help.describe(results.flatMap(places));
      const described = results.map((each) => {
        const at = places(each);
        return { ...each, result: each.result.map((row, i) => ({ ...row, neuron: known.get(placeOf(at[i] as FeatureAt)) })) };
      });
      return typeof body.text === "string" ? described[0] : { results: described };
    };
  },
};

export function mountReadings(room: Room): void {
  mount(room, tokenize);
  mount(room, activation);
  mount(room, sourceActivations);
  mount(room, topkByToken);
  mount(room, searchAll);
}

function mount<Body extends z.ZodType>(room: Room, reading: Reading<Body>): void {
  const { path, summary, description, body, answer } = reading;
  const route = createRoute({
    ...{ method: "post", path, tags: ["Readings"], summary, description, security: [{}, { ApiKey: [] }, { Bearer: [] }] },
    request: { body: { required: true, content: { "application/json": { schema: body } } } },
    responses: {
      200: { description: summary, headers: limitHeaders, content: { "application/json": { schema: answer } } },
      ...errorResponses(400, 401, 404, 413, 429, 500, 502, 503, 504),
    },
  });
  room.app.openAPIRegistry.registerPath(route);
  room.app.post(path, (c) => answerReading(room, c, reading));
}

async function answerReading<Body extends z.ZodType>(room: Room, c: Context<App>, reading: Reading<Body>): Promise<Response> {
  const caller = await identify(room, c);
  const { body } = await readBody(c.req.raw, reading.body);
  const { info, engine }: ServedModel = await room.models.get(reading.modelOf(body));
  const { signal } = c.req.raw;
  const answer = await reading.plan(body, info, {
    async vector(address) {
      const found = (await room.vectors.find([address], caller.userId)).get(keyOf(address));
      if (found !== undefined) return found;
      const { modelId, source, index } = address;
      throw new TillerError("feature_not_found", `There is no vector ${index} in '${source}' of '${modelId}' that you may use.`);
    },
    async keep(modelId, test) {
      const id = await room.shares.saveTest(caller.userId, modelId, test);
      return { id, shareUrl: testUrl(originOf(room, c), id) };
    },
    async labels(at) {
      await room.labels.sync();
      return room.labels.of(at);
    },
    describe: (at) => describeFeatures(room, at, { userId: caller.userId, examples: 0, signal }),
  });
  try {
    return c.json(
      await withQuota(
        readingQuotaOf(room.limiter, caller),
        c,
        reading.path,
        async () => (await answer((path, request) => read(engine, room.config, path, request, signal))) as object,
      ),
    );
  } catch (error) {
    // Nobody reads the answer.
    if (signal.aborted) return new Response(null, { status: CLIENT_GONE });
    throw error;
  }
}
