// Starts what the Worker's tests need outside of the runtime: the CPU engine with the bundled model, the engine of faults, and
// a proxy as Modal's before that.
import type { TestProject } from "vitest/node";
import { startCpuEngine } from "./cpu-engine.ts";
import { startModalProxy } from "./modal-proxy.ts";
import { SCRIPTED_TOKEN, startScriptedEngine } from "./scripted-engine.ts";

declare module "vitest" {
  interface ProvidedContext {
    /** Bindings of the Worker under test. */
    engineBindings: Record<
      "ENGINES" | "ENGINE_TOKEN" | "SCRIPTED_TOKEN" | "SCRIPTED_URL" | "MODAL_URL" | "WEBHOOK_DNS" | "WEBHOOK_ALLOW",
      string
    >;
  }
}

export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const cpu = await startCpuEngine();
  const scripted = await startScriptedEngine();
  const scriptedUrl = `http://127.0.0.1:${scripted.port}`;
  const modal = await startModalProxy(scriptedUrl);
  project.provide("engineBindings", {
    ENGINES: JSON.stringify([
      { models: "scripted*", url: scriptedUrl, token: "SCRIPTED_TOKEN" },
      { models: "*", url: cpu.url, token: "ENGINE_TOKEN" },
    ]),
    ENGINE_TOKEN: cpu.token,
    SCRIPTED_TOKEN,
    SCRIPTED_URL: scriptedUrl,
    MODAL_URL: `http://127.0.0.1:${modal.port}`,
    // No network: names are not looked up. The engine of faults also receives webhooks.
    WEBHOOK_DNS: "",
    WEBHOOK_ALLOW: `127.0.0.1:${scripted.port}`,
  });
  return async () => {
    await Promise.all([modal.close(), scripted.close(), cpu.close()]);
  };
}
