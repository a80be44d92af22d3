// The share page of a steer: prompt, both texts, what was edited and with which settings.
import type { Message } from "../../shared/protocol.ts";
import type { SavedSteer } from "../steer/save.ts";
import type { StoredRequest } from "../steer/stored.ts";
import { Layout, type Preview } from "./layout.tsx";

export const nameOfSteer = ({ model_id, title }: SavedSteer): string => title ?? `${model_id}, plain and steered`;

export const SharePage = (props: { steer: SavedSteer; preview: Preview; embed: boolean }) => {
  const { request, result, model_id, created_at } = props.steer;
  return (
    <Layout title={nameOfSteer(props.steer)} preview={props.preview} embed={props.embed}>
      <h1>{nameOfSteer(props.steer)}</h1>
      {request.chat === undefined ? (
        <>
          <h2>Prompt</h2>
          <p class="prompt">{request.prompt}</p>
        </>
      ) : null}
      <div class="sides">
        <section class="side">
          <h2>Default</h2>
          <Messages before={request.chat?.DEFAULT.messages} />
          <p>{result.DEFAULT.text}</p>
        </section>
        <section class="side steered">
          <h2>Steered</h2>
          <Messages before={request.chat?.STEERED.messages} />
          <p>{result.STEERED.text}</p>
        </section>
      </div>
      <h2>Edits</h2>
      <Edits steer={props.steer} />
      {props.embed ? (
        <p>
          <a href={props.preview.url}>Open on Tiller</a>
        </p>
      ) : (
        <>
          <h2>Settings</h2>
          <Settings model={model_id} request={request} />
        </>
      )}
      <p>Generated {new Date(created_at).toISOString().slice(0, 16).replace("T", " ")} UTC.</p>
    </Layout>
  );
};

/** What came before the answer in a conversation. */
const Messages = (props: { before: readonly Message[] | undefined }) => (
  <>
    {(props.before ?? []).map(({ role, content }) => (
      <p class="prompt">
        <strong>{role}</strong> {content}
      </p>
    ))}
  </>
);

const Edits = (props: { steer: SavedSteer }) => {
  const { request, result } = props.steer;
  return (
    <div class="scroll">
      <table>
        <thead>
          <tr>
            <th>Direction</th>
            <th>Where</th>
            <th>Method</th>
            <th>Strength</th>
            <th>Positions changed</th>
            <th>Mean change</th>
          </tr>
        </thead>
        <tbody>
          {request.edits.map((edit, i) => {
            const receipt = result.receipts.find((candidate) => candidate.edit === i);
            return (
              <tr>
                <td>{nameOf(request, i)}</td>
                <td>{edit.layers === "all" ? "every layer" : (receipt?.point ?? edit.point)}</td>
                <td>{edit.method}</td>
                <td>{edit.method === "PROJECTION_CLAMP" ? `${edit.min ?? "-∞"} to ${edit.max ?? "∞"}` : edit.strength}</td>
                <td>{receipt === undefined ? "" : `${receipt.positions_changed} of ${receipt.positions}`}</td>
                <td>{receipt === undefined ? "" : `${(100 * receipt.mean_relative_delta).toFixed(1)}%`}</td>
              </tr>
            );
          })}
        </tbody>
      </table>
    </div>
  );
};

function nameOf(request: StoredRequest, edit: number): string {
  const feature = request.features[edit];
  if (feature === undefined) return "own vector";
  const name = `${feature.layer} / ${feature.index}`;
  return feature.label === undefined ? name : `${feature.label} (${name})`;
}

const Settings = (props: { model: string; request: StoredRequest }) => {
  const rows = Object.entries({ model: props.model, ...props.request.settings, ...props.request.sampling });
  return (
    <table class="facts">
      <tbody>
        {rows.map(([name, value]) => (
          <tr>
            <th>{name}</th>
            <td>{typeof value === "object" ? JSON.stringify(value) : String(value)}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
};

export const MissingPage = (props: { what: string }) => (
  <Layout title="Not found">
    <h1>There is no {props.what} here</h1>
    <p>
      The link may be cut off. <a href="/">Back to the start</a>.
    </p>
  </Layout>
);
