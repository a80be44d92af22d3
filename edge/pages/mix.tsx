// The mixer: a slider for every named direction of a model, freely combined, and what they made of a prompt. Works without a script.
import type { ModelInfo } from "../../shared/protocol.ts";
import { LIMITS } from "../limits.ts";
import type { Slider } from "../steer/sliders.ts";
import { Layout } from "./layout.tsx";

export interface Mixed {
  readonly id: string;
  readonly DEFAULT: string;
  readonly STEERED: string;
}

export interface MixForm {
  readonly prompt: string;
  readonly tokens: number;
  readonly temperature: number;
  readonly seed: number;
  /** By the sliders' names. */
  readonly strengths: ReadonlyMap<string, number>;
}

/** @param props.models those that have named directions. @param props.model the one that is mixed; undefined: there is none. */
export const MixPage = (props: {
  models: readonly ModelInfo[];
  model: ModelInfo | undefined;
  sliders: readonly Slider[];
  form: MixForm;
  mixed?: Mixed | undefined;
  failed?: string | undefined;
}) => {
  const { model, models, sliders, form, mixed, failed } = props;
  return (
    <Layout title="Mixer">
      <h1>Mix directions</h1>
      {model === undefined ? (
        <p>No model with named directions is served at the moment: they come in a source without an encoder.</p>
      ) : (
        <>
          {failed === undefined ? null : <p class="failed">{failed}</p>}
          {mixed === undefined ? null : <Sides prompt={form.prompt} mixed={mixed} />}
          <form method="post" action="/mix">
            <input type="hidden" name="model" value={model.id} />
            <label>
              Prompt
              <textarea name="prompt" rows={2} maxlength={LIMITS.promptChars} required>
                {form.prompt}
              </textarea>
            </label>
            <div class="sliders">
              {sliders.map((slider) => (
                <SliderField slider={slider} value={form.strengths.get(slider.name) ?? 0} />
              ))}
            </div>
            <div class="sliders">
              <label>
                Tokens
                <input type="number" name="tokens" min="1" max={String(LIMITS.nTokens)} value={String(form.tokens)} required />
              </label>
              <label>
                Temperature
                <input type="number" name="temperature" min="0" max="2" step="0.1" value={String(form.temperature)} required />
              </label>
              <label>
                Seed
                <input type="number" name="seed" min="0" max={String(LIMITS.seed)} value={String(form.seed)} required />
              </label>
            </div>
            <button type="submit">Write</button> <a href={`/mix?model=${encodeURIComponent(model.id)}`}>All to zero</a>
          </form>
        </>
      )}
      {models.length < 2 ? null : (
        <p class="quiet">
          Other models:{" "}
          {models
            .filter(({ id }) => id !== model?.id)
            .map(({ id }, i) => (
              <>
                {i === 0 ? "" : ", "}
                <a href={`/mix?model=${encodeURIComponent(id)}`}>{id}</a>
              </>
            ))}
        </p>
      )}
    </Layout>
  );
};

const SliderField = ({ slider, value }: { slider: Slider; value: number }) => {
  const marks = `marks-${slider.name}`;
  return (
    <label>
      {slider.label} <output>{value === 0 ? "off" : String(value)}</output>
      <input
        type="range"
        name={slider.name}
        min={String(slider.min)}
        max={String(slider.max)}
        step={String(slider.step)}
        value={String(value)}
        list={marks}
      />
      <datalist id={marks}>
        {[slider.min, -slider.strength, 0, slider.strength, slider.max].map((at) => (
          <option value={String(at)}>{String(at)}</option>
        ))}
      </datalist>
    </label>
  );
};

const Sides = ({ prompt, mixed }: { prompt: string; mixed: Mixed }) => (
  <>
    <p class="prompt">{prompt}</p>
    <div class="sides">
      <section class="side">
        <h2>Default</h2>
        <p>{mixed.DEFAULT}</p>
      </section>
      <section class="side steered">
        <h2>Steered</h2>
        <p>{mixed.STEERED}</p>
      </section>
    </div>
    <p class="quiet">
      <a href={`/steer/${mixed.id}`}>The link to share</a>, with its edits and receipts.
    </p>
  </>
);
