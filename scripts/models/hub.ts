// What is in a repository of the Hugging Face hub, and the errors of the hub in words that say what to do.
import { HubApiError, type ListFileEntry, listFiles } from "@huggingface/hub";
import { CATALOG } from "../../shared/catalog.ts";

/** A file as the hub lists it. */
export interface HubFile {
  readonly repo: string;
  readonly revision: string;
  readonly path: string;
  readonly bytes: number;
  /** What its bytes must hash to: SHA-256 of a large file, git's SHA-1 of a small one. */
  readonly hash: { readonly kind: "sha256" | "git"; readonly hex: string };
}

export interface HubSettings {
  /** https://huggingface.co unless HF_ENDPOINT says otherwise. */
  readonly endpoint: string;
  /** HF_TOKEN. */
  readonly token: string | undefined;
}

export function hubSettings(environment: Readonly<Record<string, string | undefined>>): HubSettings {
  const endpoint = (environment.HF_ENDPOINT || "https://huggingface.co").replace(/\/+$/, "");
  if (!URL.canParse(endpoint) || !/^https?:$/.test(new URL(endpoint).protocol))
    throw new Error(`HF_ENDPOINT must be an http(s) address, not '${endpoint}'.`);
  return { endpoint, token: environment.HF_TOKEN || undefined };
}

/** Where a file's bytes are. */
export const fileUrl = ({ endpoint }: HubSettings, { repo, revision, path }: HubFile): string =>
  `${endpoint}/${repo}/resolve/${encodeURIComponent(revision)}/${path.split("/").map(encodeURIComponent).join("/")}`;

export const authorization = ({ token }: HubSettings): Record<string, string> =>
  token === undefined ? {} : { authorization: `Bearer ${token}` };

/** Files of a folder (without those of its subfolders, which are listed as folders). @throws Error that says what to do. */
export async function listHub(
  settings: HubSettings,
  repo: string,
  revision: string,
  folder = "",
): Promise<{ files: HubFile[]; folders: string[] }> {
  const files: HubFile[] = [];
  const folders: string[] = [];
  try {
    const { endpoint, token } = settings;
    const entries = listFiles({ repo, revision, path: folder, hubUrl: endpoint, ...(token === undefined ? {} : { accessToken: token }) });
    for await (const entry of entries) {
      if (entry.type === "directory") folders.push(entry.path);
      if (entry.type === "file") files.push(toFile(repo, revision, entry));
    }
  } catch (cause) {
    if (cause instanceof HubApiError) throw explain(settings, repo, revision, cause.statusCode, cause);
    const { message, cause: deeper } = cause as Error;
    throw new Error(`${settings.endpoint} cannot be reached: ${deeper instanceof Error ? deeper.message : message}.`, { cause });
  }
  return { files, folders };
}

function toFile(repo: string, revision: string, { path, size, oid, lfs }: ListFileEntry): HubFile {
  const hash = lfs === undefined ? ({ kind: "git", hex: oid ?? "" } as const) : ({ kind: "sha256", hex: lfs.oid } as const);
  return { repo, revision, path, bytes: lfs?.size ?? size, hash };
}

/** The hub answers 401 for what does not exist too, so that nobody learns which private repositories there are. */
export function explain({ endpoint, token }: HubSettings, repo: string, revision: string, status: number, cause?: unknown): Error {
  const page = `${endpoint}/${repo}`;
  const at = revision === "main" ? "" : ` at revision '${revision}'`;
  const known = CATALOG.find((model) => model.repo === repo);
  const sentence = (() => {
    if (status === 401 && token === undefined)
      return known?.gated
        ? `${repo} wants a licence accepted: open ${page}, accept it, and set HF_TOKEN to a token from ${endpoint}/settings/tokens.`
        : `${repo}${at} does not exist or is private: check its name, or set HF_TOKEN to a token from ${endpoint}/settings/tokens.`;
    if (status === 401) return `The hub does not accept HF_TOKEN for ${repo}: make another at ${endpoint}/settings/tokens.`;
    if (status === 403)
      return `${repo} is gated: open ${page}, accept its licence with the account that HF_TOKEN belongs to, and try again.`;
    if (status === 404)
      return `There is no ${repo}${at} on the hub, or not that file in it: npm run models -- list shows the models known by name.`;
    if (status === 429)
      return `The hub asks for fewer requests: try again later${token === undefined ? ", or set HF_TOKEN, which raises the limit" : ""}.`;
    return `The hub answered ${status} for ${repo}${at}: try again later.`;
  })();
  return new Error(sentence, { cause });
}
