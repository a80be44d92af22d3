// The page of a list: its features, with the strengths that make it a recipe.
import type { OpenedList } from "../lists/store.ts";
import { Layout, type Preview } from "./layout.tsx";

export const ListPage = (props: { opened: OpenedList; origin: string; preview: Preview; embed: boolean }) => {
  const { list, owner, items } = props.opened;
  const recipe = items.find(({ strength }) => strength !== null);
  const body = {
    ...{ prompt: "Once upon a time", modelId: recipe?.model_id, listId: list.id, features: [] },
    ...{ temperature: 0.7, n_tokens: 48, freq_penalty: 0, seed: 1, strength_multiplier: 1 },
  };
  return (
    <Layout title={list.name} preview={props.preview} embed={props.embed}>
      <h1>{list.name}</h1>
      {list.description === "" ? null : <p class="prompt">{list.description}</p>}
      <div class="scroll">
        <table>
          <thead>
            <tr>
              <th>Feature</th>
              <th>Model</th>
              <th>Strength</th>
              <th>Note</th>
            </tr>
          </thead>
          <tbody>
            {items.map((item) => (
              <tr>
                <td>
                  <a href={`/${encodeURIComponent(item.model_id)}/${item.source}/${item.index}`}>
                    {item.source} / {item.index}
                  </a>
                </td>
                <td>{item.model_id}</td>
                <td>{item.strength === null ? "" : `${item.strength}${item.method === null ? "" : ` ${item.method}`}`}</td>
                <td>{item.description}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      <p class="quiet">By {owner}.</p>
      {recipe === undefined ? null : (
        <>
          <h2>Steer with it</h2>
          <pre>{`curl -s ${props.origin}/api/steer -H 'content-type: application/json' -d '${JSON.stringify(body)}'`}</pre>
        </>
      )}
    </Layout>
  );
};
