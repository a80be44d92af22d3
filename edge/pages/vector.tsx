// The page of a vector: what it is and how to steer with it. The numbers are at /api/vector/get.
import { formatPoint } from "../../shared/address.ts";
import { pointOf, type SavedVector, vectorSource } from "../vectors/store.ts";
import { Layout, type Preview } from "./layout.tsx";

export const VectorPage = (props: { vector: SavedVector; origin: string; preview: Preview; embed: boolean }) => {
  const { model_id, label, description, index, default_strength, values, created_at, version } = props.vector;
  const source = vectorSource(pointOf(props.vector));
  const facts = {
    model: model_id,
    acts: formatPoint(pointOf(props.vector)),
    values: values.length,
    length: Math.hypot(...values).toPrecision(4),
    "default strength": default_strength,
    kept: `${new Date(created_at).toISOString().slice(0, 16).replace("T", " ")} UTC${version > 1 ? `, version ${version}` : ""}`,
  };
  const body = {
    prompt: "Once upon a time",
    modelId: model_id,
    features: [{ modelId: model_id, layer: source, index, strength: default_strength }],
    ...{ temperature: 0.7, n_tokens: 48, freq_penalty: 0, seed: 1, strength_multiplier: 1 },
  };
  return (
    <Layout title={`${label}, a vector for ${model_id}`} preview={props.preview} embed={props.embed}>
      <h1>{label}</h1>
      {description === "" ? null : <p class="prompt">{description}</p>}
      <table class="facts">
        <tbody>
          {Object.entries(facts).map(([name, value]) => (
            <tr>
              <th>{name}</th>
              <td>{String(value)}</td>
            </tr>
          ))}
        </tbody>
      </table>
      <h2>Steer with it</h2>
      <pre>{`curl -s ${props.origin}/api/steer -H 'content-type: application/json' -d '${JSON.stringify(body)}'`}</pre>
    </Layout>
  );
};
