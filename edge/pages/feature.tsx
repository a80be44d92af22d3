// The page of a feature: what it is about, what it does, and how to steer with it.
import type { Feature, FeatureActivation } from "../features/contract.ts";
import { Layout, type Preview } from "./layout.tsx";
import { Tokens } from "./tokens.tsx";

/** Texts shown. */
const EXAMPLES = 10;

/** Parts of the page, each shown unless its query flag (embedexplanation=false, ...) says no. */
export const PARTS = ["explanation", "plots", "activations", "test", "link", "steer"] as const;
export type Parts = Readonly<Record<(typeof PARTS)[number], boolean>>;

export interface FeaturePageProps {
  readonly feature: Feature;
  readonly origin: string;
  readonly preview: Preview;
  readonly embed: boolean;
  readonly parts: Parts;
  /** What the feature does on a text that was asked about, or why that is not known. */
  readonly test?: { readonly tokens: readonly string[]; readonly values: readonly number[] } | { readonly failed: string } | undefined;
}

export const titleOf = ({ layer, index, explanations }: Feature): string => explanations[0]?.description ?? `Feature ${index} of ${layer}`;

export const FeaturePage = ({ feature, origin, preview, embed, parts, test }: FeaturePageProps) => (
  <Layout title={`${titleOf(feature)}, ${feature.modelId}`} preview={preview} embed={embed}>
    <h1>{parts.explanation ? titleOf(feature) : `Feature ${feature.index} of ${feature.layer}`}</h1>
    {parts.explanation ? <Labels feature={feature} /> : null}
    <Facts feature={feature} />
    {test === undefined || !parts.test ? null : <Test test={test} />}
    {parts.activations ? <Examples activations={feature.activations} /> : null}
    {parts.plots ? <Plots feature={feature} /> : null}
    {parts.steer ? <Steer feature={feature} origin={origin} /> : null}
    {embed && parts.link ? (
      <p>
        <a href={preview.url}>Open on Tiller</a>
      </p>
    ) : null}
  </Layout>
);

const Labels = ({ feature }: { feature: Feature }) =>
  feature.explanations.length < 2 ? null : (
    <>
      <h2>Other labels</h2>
      <ul>
        {feature.explanations.slice(1).map(({ description, triggeredByUser }) => (
          <li>
            {description}
            {triggeredByUser === null ? null : <span class="quiet"> by {triggeredByUser.name}</span>}
          </li>
        ))}
      </ul>
    </>
  );

const Facts = ({ feature }: { feature: Feature }) => {
  const facts = Object.entries({
    model: feature.modelId,
    source: feature.layer,
    index: feature.index,
    acts: feature.hookName,
    "active on": feature.frac_nonzero === null ? null : `${(100 * feature.frac_nonzero).toPrecision(3)}% of tokens`,
    "greatest activation": feature.maxActApprox === 0 ? null : feature.maxActApprox.toPrecision(4),
  }).filter(([, value]) => value !== null);
  return (
    <table class="facts">
      <tbody>
        {facts.map(([name, value]) => (
          <tr>
            <th>{name}</th>
            <td>{value}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
};

const Test = ({ test }: { test: NonNullable<FeaturePageProps["test"]> }) => (
  <section>
    <h2>On your text</h2>
    {"failed" in test ? (
      <p>{test.failed}</p>
    ) : (
      <Tokens tokens={test.tokens} values={test.values} max={test.values.reduce((a, b) => Math.max(a, Math.abs(b)), 0)} />
    )}
  </section>
);

const Examples = ({ activations }: { activations: readonly FeatureActivation[] }) =>
  activations.length === 0 ? null : (
    <section>
      <h2>Most active on</h2>
      {activations.slice(0, EXAMPLES).map(({ tokens, values }) => (
        <Tokens tokens={tokens} values={values} max={activations[0]?.maxValue ?? 0} />
      ))}
    </section>
  );

const Plots = ({ feature }: { feature: Feature }) => (
  <div class="sides">
    {feature.pos_str.length === 0 ? null : <Logits title="Makes likelier" tokens={feature.pos_str} values={feature.pos_values} />}
    {feature.neg_str.length === 0 ? null : <Logits title="Makes rarer" tokens={feature.neg_str} values={feature.neg_values} />}
    {feature.freq_hist_data_bar_heights.length === 0 ? null : <Histogram feature={feature} />}
    {feature.topkCosSimIndices.length === 0 ? null : (
      <section>
        <h2>Nearest features</h2>
        <table>
          <tbody>
            {feature.topkCosSimIndices.map((index, i) => (
              <tr>
                <td>
                  <a href={`/${encodeURIComponent(feature.modelId)}/${feature.layer}/${index}`}>{index}</a>
                </td>
                <td>{feature.topkCosSimValues[i]?.toFixed(3)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </section>
    )}
  </div>
);

const Logits = ({ title, tokens, values }: { title: string; tokens: readonly string[]; values: readonly number[] }) => (
  <section>
    <h2>{title}</h2>
    <table>
      <tbody>
        {tokens.map((token, i) => (
          <tr>
            <td>
              <code>{token}</code>
            </td>
            <td>{values[i]?.toFixed(2)}</td>
          </tr>
        ))}
      </tbody>
    </table>
  </section>
);

const Histogram = ({ feature }: { feature: Feature }) => {
  const counts = feature.freq_hist_data_bar_heights;
  const most = counts.reduce((a, b) => Math.max(a, b), 1);
  const bar = 200 / Math.max(counts.length, 1);
  return (
    <section>
      <h2>Activations</h2>
      <svg class="histogram" viewBox="0 0 200 60" role="img" aria-label="How often each activation is met">
        {counts.map((count, i) => {
          const height = count === 0 ? 0 : Math.max(0.5, (58 * Math.log1p(count)) / Math.log1p(most));
          return (
            <rect x={i * bar} y={60 - height} width={bar * 0.85} height={height}>
              <title>{`from ${(feature.freq_hist_data_bar_values[i] ?? 0).toPrecision(3)}: ${count}`}</title>
            </rect>
          );
        })}
      </svg>
      <p class="quiet">Counts above 0, in logarithms, up to {feature.maxActApprox.toPrecision(3)}.</p>
    </section>
  );
};

const Steer = ({ feature, origin }: { feature: Feature; origin: string }) => {
  const { modelId, layer, index, vectorDefaultSteerStrength } = feature;
  const body = {
    ...{ prompt: "Once upon a time", modelId },
    features: [{ modelId, layer, index: Number(index), strength: vectorDefaultSteerStrength }],
    ...{ temperature: 0.7, n_tokens: 48, freq_penalty: 0, seed: 1, strength_multiplier: 1 },
  };
  return (
    <section>
      <h2>Steer with it</h2>
      <pre>{`curl -s ${origin}/api/steer -H 'content-type: application/json' -d '${JSON.stringify(body)}'`}</pre>
    </section>
  );
};
