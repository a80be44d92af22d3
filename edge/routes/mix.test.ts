import { beforeAll, describe, expect, it } from "vitest";
import { newId } from "../../shared/ids.ts";
import { newModels } from "../models.ts";
import { type Slider, slidersOf } from "../steer/sliders.ts";
import { call, config, json, ORIGIN, post } from "../test/worker/client.ts";

const MODEL = "tiller-tales";
let sliders: readonly Slider[];
beforeAll(async () => {
  sliders = slidersOf((await newModels(config()).get(MODEL)).info);
});

/** A visitor of their own: quotas of those without a key are counted by address. */
let visitors = 0;
const visitor = () => ({ "cf-connecting-ip": `198.51.100.${++visitors}` });
const send = (fields: Record<string, string>, headers: Record<string, string> = visitor()) =>
  call("/mix", {
    ...{ method: "POST", redirect: "manual", body: new URLSearchParams({ ...SETTINGS, ...fields }) },
    headers: { origin: ORIGIN, ...headers },
  });
const SETTINGS = { model: MODEL, prompt: "One day, Anna", tokens: "12", temperature: "0.7", seed: "5" };

describe("the mixer", () => {
  it("has a slider for every named direction, all at zero", async () => {
    const response = await call(`/mix?model=${MODEL}`);
    const page = await response.text();
    expect(response.status).toBe(200);
    expect(page).not.toContain("<script");
    expect(sliders.length).toBeGreaterThan(3);
    for (const { name, label, max } of sliders) {
      expect(page).toContain(label);
      expect(page).toMatch(new RegExp(`<input type="range" name="${name}" min="-${max}" max="${max}" step="[\\d.]+" value="0"`));
    }
  });

  it("writes what the API writes with the same directions together, and shows it again at its address", async () => {
    const [first, second] = sliders as [Slider, Slider];
    const moved = { [first.name]: String(first.strength), [second.name]: String(-second.strength) };
    const response = await send(moved);
    expect(response.status).toBe(303);
    const address = response.headers.get("location") ?? "";
    expect(address).toMatch(/^\/mix\?steer=cm/);
    const page = await (await call(address)).text();
    const features = [first, second].map(({ source, index, strength }, i) => ({
      ...{ modelId: MODEL, layer: source, index },
      strength: i === 0 ? strength : -strength,
    }));
    const body = { prompt: SETTINGS.prompt, modelId: MODEL, features, temperature: 0.7, n_tokens: 12, freq_penalty: 0, seed: 5 };
    const wanted = await json(await post("/api/steer", { ...body, strength_multiplier: 1, n_logprobs: 0 }, visitor()));
    const escaped = (text: unknown) => String(text).replaceAll("&", "&amp;").replaceAll('"', "&quot;").replaceAll("'", "&#39;");
    expect(page).toContain(escaped(wanted.STEERED));
    expect(page).toContain(escaped(wanted.DEFAULT));
    expect(page).toContain(`name="${first.name}" min="-${first.max}" max="${first.max}" step="${first.step}" value="${first.strength}"`);
    expect(page).toContain(`value="${-second.strength}"`);
    expect(page).toContain(">One day, Anna</textarea>");
  });

  it("says what is wrong with a form, and keeps what was typed", async () => {
    const [first] = sliders as [Slider];
    const along = { [first.name]: String(first.strength) };
    const cases: [Record<string, string>, number, RegExp][] = [
      [{}, 400, /Every slider is at zero/],
      [{ [first.name]: String(first.max + 1) }, 400, /goes from -/],
      [{ [first.name]: "strong" }, 400, /goes from -/],
      [{ ...along, prompt: "" }, 400, /prompt must be a text/],
      [{ ...along, tokens: "100000" }, 400, /n_tokens must be a whole number/],
      [{ ...along, model: "gpt5" }, 404, /There is no model &#39;gpt5&#39;/],
    ];
    for (const [fields, status, sentence] of cases) {
      const response = await send(fields);
      expect([response.status, await response.text()]).toEqual([status, expect.stringMatching(sentence)]);
    }
    expect(await (await send({ [first.name]: "0", prompt: "Kept <b>" })).text()).toContain("Kept &lt;b&gt;</textarea>");
  });

  it("takes no form of another site, and counts what it writes", async () => {
    const [first] = sliders as [Slider];
    const along = { [first.name]: String(first.strength), tokens: "1" };
    expect((await send(along, { ...visitor(), origin: "https://evil.example" })).status).toBe(403);
    const one = visitor();
    const response = await send(along, one);
    expect([response.status, response.headers.get("x-limit-remaining")]).toEqual([303, "19"]);
  });

  it("says when there is no such steer or model", async () => {
    expect((await call(`/mix?steer=${newId()}`)).status).toBe(404);
    expect((await call("/mix?model=nothing")).status).toBe(404);
  });
});

describe("presets", () => {
  it("say how far the slider of a named direction goes", async () => {
    const { featurePresets } = (await json(await post("/api/steer/presets", { modelId: MODEL }))) as unknown as {
      featurePresets: { name: string; features: { slider?: object }[] }[];
    };
    const found = featurePresets.find(({ name }) => name === sliders[0]?.label);
    const { min, max, step } = sliders[0] as Slider;
    expect(found?.features[0]?.slider).toEqual({ min, max, step });
  });
});
