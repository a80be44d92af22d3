import { existsSync } from "node:fs";
import path from "node:path";
import { cloudflareTest, readD1Migrations } from "@cloudflare/vitest-plugin";
import { defineConfig } from "vitest/config";

/** The engine protocol's tests once more, on the PyTorch engine: gpu-functions/gpu/python.test.ts says so where it is left out. */
const gpuEngine = {
  test: {
    name: "gpu",
    pool: "forks" as const,
    include: ["gpu-functions/conformance/*.test.ts"],
    env: { TILLER_ENGINE: "gpu", OMP_NUM_THREADS: "1" },
    // A process with PyTorch takes seconds to start, and every file has some.
    testTimeout: 180_000,
    hookTimeout: 180_000,
    expect: { poll: { timeout: 15_000 } },
  },
};

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
      ...(existsSync(path.join(import.meta.dirname, ".tiller", "torch")) || process.env.PYTHON ? [gpuEngine] : []),
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
