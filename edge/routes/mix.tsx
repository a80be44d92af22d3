// GET and POST /mix: the mixer. What it writes is a saved steer, and its address shows it again with the sliders as they were.
import type { Context } from "hono";
import { TillerError } from "../../shared/errors.ts";
import type { ModelInfo } from "../../shared/protocol.ts";
import { logFault } from "../answers.ts";
import type { App, Room } from "../app.ts";
import { parseBody } from "../body.ts";
import { generate } from "../engine.ts";
import { LIMITS } from "../limits.ts";
import { type Mixed, type MixForm, MixPage } from "../pages/mix.tsx";
import { requireOwnForm, signedIn } from "../people/session.ts";
import { steerQuotaOf, withQuota } from "../quota.ts";
import { identify } from "../route.ts";
import { finishSteer } from "../steer/answer.ts";
import { SteerRequest } from "../steer/contract.ts";
import { planSteer } from "../steer/edits.ts";
import type { SavedSteer } from "../steer/save.ts";
import { slidersOf } from "../steer/sliders.ts";
import { FORM_POLICY } from "./sign-in.tsx";

const DOCTYPE = "<!doctype html>";
const BEGIN: MixForm = { prompt: "The children walked home and", tokens: 60, temperature: 0.7, seed: 1, strengths: new Map() };

export function mountMixer(room: Room): void {
  const { app, config, models, steers, accounts, limiter } = room;

  const show = async (
    c: Context<App>,
    modelId: string | undefined,
    form: MixForm,
    more: { readonly mixed?: Mixed; readonly failed?: TillerError } = {},
  ) => {
    // The page also shows without an engine.
    const all = (await models.list().catch(() => [])).filter((model) => slidersOf(model).length > 0);
    const model = modelId === undefined ? all[0] : all.find(({ id }) => id === modelId);
    const missing = modelId !== undefined && model === undefined && more.failed === undefined;
    const failed = missing
      ? new TillerError("model_not_found", `There is no model '${modelId.slice(0, 128)}' with named directions.`)
      : more.failed;
    c.header("content-security-policy", FORM_POLICY);
    c.header("cache-control", "no-store");
    const shown = model ?? all[0];
    const sliders = shown === undefined ? [] : slidersOf(shown);
    const page = <MixPage {...{ models: all, model: shown, sliders, form }} mixed={more.mixed} failed={failed?.message} />;
    return c.html(DOCTYPE + page, failed?.status ?? 200);
  };

  app.get("/mix", async (c) => {
    const { model, steer } = c.req.query();
    if (steer === undefined) return show(c, model, BEGIN);
    const saved = await steers.find(steer, { userId: await signedIn(room, c), admin: false });
    if (saved === undefined)
      return show(c, model, BEGIN, { failed: new TillerError("not_found", "There is no such steer here: its link may be cut off.") });
    return show(c, saved.model_id, formOf(saved), { mixed: mixedOf(saved) });
  });

  app.post("/mix", async (c) => {
    requireOwnForm(room, c);
    const fields = await c.req.parseBody();
    const modelId = typeof fields.model === "string" ? fields.model : "";
    let form = BEGIN;
    try {
      const { info, engine } = await models.get(modelId, c.req.raw.signal);
      form = readForm(fields, info);
      const body = bodyOf(form, info);
      const userId = await signedIn(room, c);
      const plan = await planSteer(body, info, room, userId);
      const user = userId === undefined ? undefined : await accounts.user(userId);
      const visitor =
        user === undefined
          ? await identify(room, c)
          : { identifier: `user:${user.id}`, steersPerHour: user.hourly_limit ?? LIMITS.steersPerHour };
      const done = await withQuota(steerQuotaOf(limiter, visitor), c, "/mix", () =>
        generate(engine, config, plan.engineRequest, c.req.raw.signal),
      );
      const result = finishSteer(plan.engineRequest, done);
      const id = steers.save({ userId, modelId: info.id, request: plan.stored, result }, (work) => c.executionCtx.waitUntil(work));
      return c.redirect(`/mix?steer=${id}`, 303);
    } catch (thrown) {
      const error = TillerError.from(thrown);
      logFault(error, c.get("requestId"));
      return show(c, modelId, form, { failed: error });
    }
  });
}

/** @throws TillerError `invalid_request` naming the field. */
function readForm(fields: Readonly<Record<string, unknown>>, model: ModelInfo): MixForm {
  const strengths = slidersOf(model).map(({ name, label, max }) => {
    const value = Number(fields[name] ?? 0);
    if (!Number.isFinite(value) || Math.abs(value) > max)
      throw new TillerError("invalid_request", `The slider '${label}' goes from ${-max} to ${max}.`);
    return [name, value] as const;
  });
  return {
    prompt: typeof fields.prompt === "string" ? fields.prompt : "",
    ...{ tokens: Number(fields.tokens), temperature: Number(fields.temperature), seed: Number(fields.seed) },
    strengths: new Map(strengths),
  };
}

/** @throws TillerError `invalid_request` naming the field; also when no slider was moved. */
function bodyOf({ prompt, tokens, temperature, seed, strengths }: MixForm, model: ModelInfo): SteerRequest {
  const features = slidersOf(model).flatMap(({ name, source, index }) => {
    const strength = strengths.get(name) ?? 0;
    return strength === 0 ? [] : [{ modelId: model.id, layer: source, index, strength }];
  });
  if (features.length === 0) throw new TillerError("invalid_request", "Every slider is at zero: move one, and see what it does.");
  const body = {
    prompt,
    modelId: model.id,
    features,
    temperature,
    n_tokens: tokens,
    freq_penalty: 0,
    seed,
    strength_multiplier: 1,
    n_logprobs: 0,
  };
  return parseBody(body, SteerRequest);
}

const formOf = ({ request }: SavedSteer): MixForm => ({
  prompt: request.prompt,
  ...{ tokens: request.settings.n_tokens, temperature: request.settings.temperature, seed: request.settings.seed },
  strengths: new Map(request.features.map(({ layer, index, strength }) => [`${layer}/${index}`, strength])),
});

const mixedOf = ({ id, result }: SavedSteer): Mixed => ({ id, DEFAULT: result.DEFAULT.text, STEERED: result.STEERED.text });
