// Bindings that only tests have (vitest.config.ts).
declare namespace Cloudflare {
  interface Env {
    TEST_MIGRATIONS: import("cloudflare:test").D1Migration[];
    SCRIPTED_URL: string;
    MODAL_URL: string;
  }
}
