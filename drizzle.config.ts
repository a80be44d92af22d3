import { defineConfig } from "drizzle-kit";

export default defineConfig({
  dialect: "sqlite",
  schema: ["./edge/schema.ts", "./edge/jobs-schema.ts", "./edge/people-schema.ts"],
  out: "./migrations",
});
