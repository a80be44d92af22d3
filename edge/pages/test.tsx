// The page of a shared activation test: texts with what a feature does on each token.
import type { SavedTest } from "../share/store.ts";
import { Layout, type Preview } from "./layout.tsx";
import { Tokens } from "./tokens.tsx";

export const TestPage = (props: { test: SavedTest; preview: Preview; embed: boolean }) => {
  const { model_id, test, title, created_at } = props.test;
  const address = `/${encodeURIComponent(model_id)}/${test.source}/${test.index}`;
  const max = test.results.flatMap(({ values }) => values).reduce((a, b) => Math.max(a, Math.abs(b)), 0);
  return (
    <Layout title={title ?? nameOfTest(props.test)} preview={props.preview} embed={props.embed}>
      <h1>{title ?? nameOfTest(props.test)}</h1>
      {test.results.map(({ tokens, values }) => (
        <Tokens tokens={tokens} values={values} max={max} />
      ))}
      <p class="quiet">
        Greatest activation {max.toPrecision(4)}; <a href={address}>the feature</a>. Made{" "}
        {new Date(created_at).toISOString().slice(0, 16).replace("T", " ")} UTC.
      </p>
    </Layout>
  );
};

export const nameOfTest = ({ model_id, test }: SavedTest): string => `Feature ${test.index} of ${test.source} of ${model_id} on a text`;
