// The pages: GET /, and those that links lead to: steers, activation tests, lists, features and vectors, each also for a frame.
import type { Context } from "hono";
import { TillerError } from "../../shared/errors.ts";
import { logFault } from "../answers.ts";
import type { App, Room } from "../app.ts";
import { read } from "../engine.ts";
import type { Feature } from "../features/contract.ts";
import { describeFeatures } from "../features/describe.ts";
import { type FeatureAt, placeOf } from "../features/store.ts";
import { LIMITS } from "../limits.ts";
import { FeaturePage, type FeaturePageProps, PARTS, type Parts, titleOf } from "../pages/feature.tsx";
import { LandingPage } from "../pages/landing.tsx";
import type { Preview } from "../pages/layout.tsx";
import { ListPage } from "../pages/list.tsx";
import { MissingPage, nameOfSteer, SharePage } from "../pages/share.tsx";
import { nameOfTest, TestPage } from "../pages/test.tsx";
import { VectorPage } from "../pages/vector.tsx";
import { signedIn } from "../people/session.ts";
import { readingQuotaOf, withQuota } from "../quota.ts";
import { identify, originOf } from "../route.ts";
import { type Asker, NOBODY } from "../share/store.ts";
import type { SavedSteer } from "../steer/save.ts";
import { nameOfSweep } from "../sweeps/page.tsx";
import { keyOf, vectorPoint } from "../vectors/store.ts";
import { mountOEmbed, oembedUrl } from "./oembed.ts";
import { toShare } from "./shares.ts";

const DOCTYPE = "<!doctype html>";
const FEATURE = /^\/([^/]+)\/(\d{1,4}-[A-Za-z0-9][A-Za-z0-9._-]*)\/(\d{1,10})\/?$/;
/** Public steers on the first page. */
const SHOWN = 8;
const DESCRIPTION_CHARS = 200;

/** A page in a frame may be shown by every site; all others by none (app.ts). */
export const EMBED_POLICY = "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors *";

export function mountPages(room: Room): void {
  const { app, models, steers, vectors, shares, lists } = room;
  const embedded = (c: Context<App>): boolean => {
    const embed = c.req.query("embed") === "true";
    if (embed) c.header("content-security-policy", EMBED_POLICY);
    return embed;
  };
  const previewOf = (c: Context<App>, description: string): Preview => {
    const url = `${originOf(room, c)}${c.req.path.replace(/\/$/, "")}`;
    return { url, description: description.slice(0, DESCRIPTION_CHARS), oembed: oembedUrl(originOf(room, c), url) };
  };
  /** Whose private things are on a page too. */
  const visitor = async (c: Context<App>): Promise<Asker> => ({ userId: await signedIn(room, c), admin: false });
  const missing = (c: Context<App>, what: string) => c.html(DOCTYPE + <MissingPage what={what} />, 404);

  app.get("/", async (c) => {
    // The page also shows without an engine.
    const list = await models.list().catch((error: unknown) => {
      logFault(TillerError.from(error), c.get("requestId"));
      return undefined;
    });
    const origin = originOf(room, c);
    const shown = (await shares.listed({ limit: SHOWN, offset: 0 })).map((row) => toShare(row, origin));
    return c.html(DOCTYPE + <LandingPage origin={origin} models={list} shares={shown} />);
  });

  app.get("/steer/:id", async (c) => {
    const saved = await steers.find(c.req.param("id"), await visitor(c));
    if (saved === undefined) return missing(c, "steer");
    return c.html(DOCTYPE + <SharePage steer={saved} preview={previewOf(c, summaryOf(saved))} embed={embedded(c)} />);
  });

  app.get("/test/:id", async (c) => {
    const test = await shares.test(c.req.param("id"), await visitor(c));
    if (test === undefined) return missing(c, "activation test");
    const text = test.test.results.map(({ tokens }) => tokens.join("")).join(" ");
    return c.html(DOCTYPE + <TestPage test={test} preview={previewOf(c, text)} embed={embedded(c)} />);
  });

  app.get("/list/:id", async (c) => {
    const opened = await lists.open(c.req.param("id"), undefined);
    if (opened === undefined) return missing(c, "list");
    const preview = previewOf(c, opened.list.description || `A list of ${opened.items.length} features by ${opened.owner}.`);
    return c.html(DOCTYPE + <ListPage opened={opened} origin={originOf(room, c)} preview={preview} embed={embedded(c)} />);
  });

  app.get("/:model/:source{[0-9]{1,4}-[A-Za-z0-9._-]+}/:index{[0-9]{1,10}}", async (c) => {
    const at = { modelId: c.req.param("model"), source: c.req.param("source"), index: Number(c.req.param("index")) };
    const origin = originOf(room, c);
    if (vectorPoint(at.source) !== undefined) {
      const vector = (await vectors.find([at], (await visitor(c)).userId)).get(keyOf(at));
      if (vector === undefined) return missing(c, "vector");
      const preview = previewOf(c, vector.description || `A steering vector for ${vector.model_id}.`);
      return c.html(DOCTYPE + <VectorPage vector={vector} origin={origin} preview={preview} embed={embedded(c)} />);
    }
    const feature = await findFeature(at, c.req.raw.signal);
    if (feature === undefined) return missing(c, "feature");
    const parts = Object.fromEntries(PARTS.map((part) => [part, c.req.query(`embed${part}`) !== "false"])) as Parts;
    const test = await testFeature(c, at, parts);
    const preview = previewOf(c, describe(feature));
    return c.html(DOCTYPE + <FeaturePage {...{ feature, origin, preview, parts, test }} embed={embedded(c)} />);
  });

  mountOEmbed(room, async (path) => {
    const [, kind = "", id = ""] = /^\/(steer|test|list|sweep)\/([^/]+)\/?$/.exec(path) ?? [];
    if (kind === "steer") {
      const steer = await steers.find(id, NOBODY);
      return steer && { kind, title: nameOfSteer(steer) };
    }
    if (kind === "test") {
      const test = await shares.test(id, NOBODY);
      return test && { kind, title: test.title ?? nameOfTest(test) };
    }
    if (kind === "list") {
      const opened = await lists.open(id, undefined);
      return opened && { kind, title: opened.list.name };
    }
    if (kind === "sweep") {
      const job = await room.jobs.get(id);
      return job?.kind === "sweep" ? { kind, title: nameOfSweep(job) } : undefined;
    }
    const [, model, source = "", index] = FEATURE.exec(path) ?? [];
    if (model === undefined) return undefined;
    const at = { modelId: decodeURIComponent(model), source, index: Number(index) };
    const feature = await findFeature(at, new AbortController().signal);
    return feature && { kind: "feature", title: feature.vectorLabel ?? titleOf(feature) };
  });

  async function findFeature(at: FeatureAt, signal: AbortSignal): Promise<Feature | undefined> {
    return (await describeFeatures(room, [at], { userId: undefined, examples: LIMITS.examplesPerFeature, signal })).get(placeOf(at));
  }

  /** `defaulttesttext`: what the feature does on a text of the link's author. A failure is said on the page. */
  async function testFeature(c: Context<App>, { modelId, source, index }: FeatureAt, parts: Parts): Promise<FeaturePageProps["test"]> {
    const text = c.req.query("defaulttesttext");
    if (text === undefined || text === "" || !parts.test) return undefined;
    try {
      if (text.length > LIMITS.testTextChars)
        throw new TillerError("invalid_request", `The text must have at most ${LIMITS.testTextChars} characters.`);
      const { engine } = await models.get(modelId);
      const request = { model: modelId, texts: [text], targets: [{ feature: { model: modelId, source, index } }] };
      const { items } = await withQuota(readingQuotaOf(room.limiter, await identify(room, c)), c, c.req.path, () =>
        read(engine, room.config, "/activations", request, c.req.raw.signal),
      );
      const [item] = items;
      return { tokens: item?.tokens.map(({ token }) => token) ?? [], values: item?.values[0] ?? [] };
    } catch (thrown) {
      const error = TillerError.from(thrown);
      logFault(error, c.get("requestId"));
      return { failed: error.message };
    }
  }
}

const summaryOf = ({ request, result }: SavedSteer): string =>
  `${(request.chat?.STEERED.messages.at(-1)?.content ?? request.prompt).trim()} → ${result.STEERED.text.trim()}`;

const describe = ({ layer, index, modelId, activations }: Feature): string => {
  const tokens = [...new Set(activations.slice(0, 5).map((each) => each.tokens[each.maxValueTokenIndex]?.trim()))].filter(Boolean);
  return `Feature ${index} of ${layer} of ${modelId}${tokens.length === 0 ? "" : `, most active on ${tokens.join(", ")}`}.`;
};
