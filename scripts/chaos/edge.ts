// The edge alone, as a process that can be killed: the runner of `npm start` on a fixed port, with a database that stays.
//   PORT  STATE  ENGINE_URL  ENGINE_TOKEN
import { startEdge } from "../local-edge.ts";

const setting = (name: string): string => {
  const value = process.env[name];
  if (value === undefined) throw new Error(`${name} is missing.`);
  return value;
};

const edge = await startEdge({
  port: Number(setting("PORT")),
  state: setting("STATE"),
  engine: { url: setting("ENGINE_URL"), token: setting("ENGINE_TOKEN") },
});
console.log(`edge on ${edge.url}`);
process.on("SIGTERM", () => void edge.close().then(() => process.exit(0)));
