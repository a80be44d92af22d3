import path from "node:path";
import { cloudflareTest, readD1Migrations } from "@cloudflare/vitest-plugin";
import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    projects: [
      {
        // The edge, in the runtime it is deployed to.
        plugins: [
          cloudflareTest(async ({ inject }) => ({
            wrangler: { configPath: "./wrangler.toml" },
            miniflare: {
              cf: false,
              bindings: {
                ...inject("engineBindings"),
                TEST_MIGRATIONS: await readD1Migrations(path.join(import.meta.dirname, "migrations")),
              },
            },
          })),
        ],
        test: {
          name: "workers",
          include: ["edge/**/*.test.ts"],
          exclude: ["edge/test/node/**"],
          setupFiles: ["edge/test/worker/setup.ts"],
          // Packages whose ES modules wrap CommonJS ones: bundled first, as they are for a deployment.
          deps: { optimizer: { ssr: { enabled: true, include: ["discord-api-types/v10", "@discordjs/rest"] } } },
          globalSetup: ["edge/test/node/global-setup.ts"],
          testTimeout: 60_000,
          hookTimeout: 60_000,
          // Polls wait for something that happens elsewhere; on a busy machine that takes longer than the second they have by default.
          expect: { poll: { timeout: 15_000 } },
        },
      },
      {
        // Everything that runs in Node. Plain processes: a VM has its own typed arrays, which native code does not take for them.
        test: {
          name: "node",
          pool: "forks",
          include: ["{shared,gpu-functions,scripts,bots}/**/*.test.ts", "edge/test/node/**/*.test.ts"],
          testTimeout: 60_000,
          hookTimeout: 60_000,
          expect: { poll: { timeout: 15_000 } },
        },
      },
    ],
  },
});
