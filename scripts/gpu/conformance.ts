// `conformance`: the checks against a deployed endpoint, or any engine.
import { CHECKS } from "./checks.ts";
import { Endpoint } from "./endpoint.ts";
import type { Io } from "./io.ts";
import { openModal } from "./modal.ts";
import { getGpuModel } from "./models.ts";

/** Endpoints of Modal, behind its proxy. */
const MODAL_HOST = /\.modal\.run$/;

/**
 * Runs every check and says one line for each.
 * @returns whether all are met.
 * @throws Error, one sentence, when there is nobody to check.
 */
export async function conformance(model: string, url: string | undefined, { environment, say }: Io): Promise<boolean> {
  if (url !== undefined && !/^https?:$/.test(URL.parse(url)?.protocol ?? ""))
    throw new Error(`--url takes an http(s) address, not '${url}'.`);
  const at = url?.replace(/\/+$/, "") ?? (await lookUp(model, environment));
  const engine = new Endpoint(at, model, headersFor(environment, url === undefined || MODAL_HOST.test(new URL(url).hostname)));
  // Whoever does not answer at all fails once, and not at every check.
  await engine.send("/health").catch((error: unknown) => {
    throw new Error(`${(error as Error).message}: start it, or check the address.`, { cause: error });
  });
  say(`${model} at ${at}`);
  let failures = 0;
  for (const { name, needsToken, run } of CHECKS) {
    if (needsToken && !engine.hasToken) {
      say(`skipped ${name}: ENGINE_TOKEN is not set`);
      continue;
    }
    try {
      await run(engine);
      say(`ok      ${name}`);
    } catch (error) {
      failures++;
      say(`FAILED  ${name}: ${(error as Error).message}`);
    }
  }
  if (failures > 0) say(`${failures} of ${CHECKS.length} checks failed.`);
  return failures === 0;
}

async function lookUp(model: string, environment: Io["environment"]): Promise<string> {
  const known = getGpuModel(model);
  const missing = ["ENGINE_TOKEN", "MODAL_KEY", "MODAL_SECRET"].filter((name) => !environment[name]);
  if (missing.length > 0) throw new Error(`Set ${missing.join(", ")}: the endpoint lets nobody in without.`);
  return await (await (await openModal()).getClass(known)).getUrl();
}

/** The proxy's own credentials go to Modal alone. */
function headersFor({ ENGINE_TOKEN, MODAL_KEY, MODAL_SECRET }: Io["environment"], onModal: boolean): Record<string, string> {
  return {
    ...(ENGINE_TOKEN ? { authorization: `Bearer ${ENGINE_TOKEN}` } : {}),
    ...(onModal && MODAL_KEY && MODAL_SECRET ? { "modal-key": MODAL_KEY, "modal-secret": MODAL_SECRET } : {}),
  };
}
