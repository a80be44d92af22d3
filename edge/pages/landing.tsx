import type { ModelInfo } from "../../shared/protocol.ts";
import { Layout } from "./layout.tsx";

interface Link {
  readonly url: string;
  readonly title: string | null;
  readonly modelId: string;
}

/** @param props.models undefined = no engine answers now. */
export const LandingPage = (props: { origin: string; models: readonly ModelInfo[] | undefined; shares: readonly Link[] }) => (
  <Layout title="Tiller">
    <h1>Steer language models along directions of their residual stream</h1>
    <p>
      One call generates a text twice: as the model would write it, and with an edit in the middle of the model. Read{" "}
      <a href="/docs">the API</a> (<a href="/openapi.json">OpenAPI</a>), see <a href="/api/models">the models and their directions</a>, or
      check <a href="/health">the service</a>.
    </p>
    <Models models={props.models} />
    <Example origin={props.origin} model={props.models?.find((model) => model.sources.length > 0)} />
    {props.shares.length === 0 ? null : (
      <section>
        <h2>Made public lately</h2>
        <ul>
          {props.shares.map(({ url, title, modelId }) => (
            <li>
              <a href={new URL(url).pathname}>{title ?? `A steer of ${modelId}`}</a>
            </li>
          ))}
        </ul>
      </section>
    )}
  </Layout>
);

const Models = (props: { models: readonly ModelInfo[] | undefined }) => {
  if (props.models === undefined) return <p>No engine answers at the moment: steering will work again when one does.</p>;
  return (
    <div class="scroll">
      <table>
        <thead>
          <tr>
            <th>Model</th>
            <th>Layers</th>
            <th>Width</th>
            <th>Sources</th>
          </tr>
        </thead>
        <tbody>
          {props.models.map((model) => (
            <tr>
              <td>{model.id}</td>
              <td>{model.layers}</td>
              <td>{model.width}</td>
              <td>
                {model.sources.length === 0 ? "none" : null}
                {model.sources.map(({ id, labelled_features }, i) => (
                  <>
                    {i === 0 ? "" : ", "}
                    <a href={`/${encodeURIComponent(model.id)}/${id}/${labelled_features[0]?.index ?? 0}`}>{id}</a>
                  </>
                ))}
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
};

const Example = (props: { origin: string; model: ModelInfo | undefined }) => {
  const source = props.model?.sources.find(({ labelled_features }) => labelled_features.length > 0) ?? props.model?.sources[0];
  if (props.model === undefined || source === undefined) return null;
  const feature = source.labelled_features[0];
  const body = {
    prompt: "Once upon a time",
    modelId: props.model.id,
    features: [{ modelId: props.model.id, layer: source.id, index: feature?.index ?? 0, strength: feature?.strength ?? 10 }],
    temperature: 0.7,
    n_tokens: 32,
    freq_penalty: 0.3,
    seed: 16,
    strength_multiplier: 1,
  };
  return (
    <section>
      <h2>Try it</h2>
      <pre>{`curl -s ${props.origin}/api/steer -H 'content-type: application/json' -d '${JSON.stringify(body, undefined, 2)}'`}</pre>
    </section>
  );
};
