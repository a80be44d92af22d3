// The pages of somebody who is signed in, and of somebody who is not yet: forms only, no script.
import { formatPoint } from "../../shared/address.ts";
import type { Share } from "../share/store.ts";
import { pointOf, type SavedVector, vectorSource } from "../vectors/store.ts";
import { Layout } from "./layout.tsx";

export interface AccountProps {
  readonly name: string;
  /** What Discord calls them; undefined = not connected. */
  readonly discord: string | undefined;
  readonly steers: { readonly remaining: number; readonly limit: number };
  readonly vectors: readonly SavedVector[];
  readonly vectorCount: number;
  readonly shares: readonly Share[];
  readonly shareCount: number;
  readonly keyCount: number;
  /** A key that was made just now: it is shown this once. */
  readonly newKey?: string | undefined;
  readonly failed?: string | undefined;
}

export const AccountPage = (props: AccountProps) => (
  <Layout title="Your account">
    <h1>{props.name}</h1>
    <Failed text={props.failed} />
    {props.newKey === undefined ? null : (
      <section>
        <h2>Your new API key</h2>
        <pre>{props.newKey}</pre>
        <p class="quiet">Keep it now: it is not shown again.</p>
      </section>
    )}
    <table class="facts">
      <tbody>
        <tr>
          <th>steers left in this hour</th>
          <td>
            {props.steers.remaining} of {props.steers.limit}
          </td>
        </tr>
        <tr>
          <th>Discord</th>
          <td>{props.discord ?? "not connected: send /link to the bot there"}</td>
        </tr>
        <tr>
          <th>API keys</th>
          <td>{props.keyCount}</td>
        </tr>
      </tbody>
    </table>
    <Vectors vectors={props.vectors} count={props.vectorCount} />
    <Steers shares={props.shares} count={props.shareCount} />
    <h2>This account</h2>
    <Button action="/account/new-key">Make an API key</Button>
    {props.discord === undefined ? null : <Button action="/account/disconnect">Disconnect Discord</Button>}
    <Button action="/account/sign-out">Sign out</Button>
  </Layout>
);

const Vectors = ({ vectors, count }: { vectors: readonly SavedVector[]; count: number }) => (
  <section>
    <h2>Your vectors</h2>
    {vectors.length === 0 ? (
      <p>You have none yet: make one with /vector new in Discord, or with POST /api/vector/new.</p>
    ) : (
      <div class="scroll">
        <table>
          <thead>
            <tr>
              <th>Vector</th>
              <th>Model</th>
              <th>Acts</th>
              <th>Strength</th>
              <th>Seen by</th>
            </tr>
          </thead>
          <tbody>
            {vectors.map((vector) => (
              <tr>
                <td>
                  <a href={`/${encodeURIComponent(vector.model_id)}/${vectorSource(pointOf(vector))}/${vector.index}`}>{vector.label}</a>
                </td>
                <td>{vector.model_id}</td>
                <td>{formatPoint(pointOf(vector))}</td>
                <td>{vector.default_strength}</td>
                <td>{SEEN_BY[vector.visibility]}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    )}
    {count > vectors.length ? (
      <p class="quiet">
        The newest {vectors.length} of {count}.
      </p>
    ) : null}
  </section>
);

const SEEN_BY = { private: "you", unlisted: "who has its address", public: "everybody" } as const;

const Steers = ({ shares, count }: { shares: readonly Share[]; count: number }) =>
  shares.length === 0 ? null : (
    <section>
      <h2>Your last steers</h2>
      <ul>
        {shares.map(({ kind, id, title, model_id, created_at }) => (
          <li>
            <a href={`/${kind}/${id}`}>{title ?? `${kind === "steer" ? "A steer" : "An activation test"} of ${model_id}`}</a>{" "}
            <span class="quiet">{new Date(created_at).toISOString().slice(0, 16).replace("T", " ")} UTC</span>
          </li>
        ))}
      </ul>
      {count > shares.length ? (
        <p class="quiet">
          The newest {shares.length} of {count}.
        </p>
      ) : null}
    </section>
  );

/** @param props.discord whether people can sign in with Discord here. */
export const SignInPage = (props: { discord: boolean; failed?: string | undefined }) => (
  <Layout title="Sign in">
    <h1>Sign in</h1>
    <Failed text={props.failed} />
    {props.discord ? (
      <p>
        <a class="button" href="/auth/discord">
          Sign in with Discord
        </a>
      </p>
    ) : null}
    <form method="post" action="/account/key">
      <KeyField />
      <button type="submit">Sign in with the key</button>
    </form>
    <p class="quiet">npm start prints a key; an administrator can make one for you. Signing in sets one cookie, for thirty days.</p>
  </Layout>
);

/** @param props.account whose it becomes: undefined = nobody is signed in, and a key is asked for. */
export const LinkPage = (props: { code: string; name: string; account: string | undefined; failed?: string | undefined }) => (
  <Layout title="Connect Discord">
    <h1>Connect {props.name} of Discord with your account</h1>
    <Failed text={props.failed} />
    <p>
      The bot will act for your account when {props.name} uses it: your quota, your vectors, your steers. What {props.name} has made in
      Discord comes along. Go on only if {props.name} is you.
    </p>
    <form method="post" action={`/link/${props.code}`}>
      {props.account === undefined ? <KeyField /> : <p>You are signed in as {props.account}.</p>}
      <button type="submit">Connect</button>
    </form>
  </Layout>
);

export const PlainPage = ({ title, text }: { title: string; text: string }) => (
  <Layout title={title}>
    <h1>{title}</h1>
    <p>{text}</p>
    <p>
      <a href="/account">Your account</a>
    </p>
  </Layout>
);

const Failed = ({ text }: { text: string | undefined }) =>
  text === undefined ? null : (
    <p class="failed" role="alert">
      {text}
    </p>
  );

const KeyField = () => (
  <label>
    API key <input type="password" name="key" autocomplete="off" required maxlength={200} />
  </label>
);

const Button = ({ action, children }: { action: string; children: string }) => (
  <form class="inline" method="post" action={action}>
    <button type="submit">{children}</button>
  </form>
);
