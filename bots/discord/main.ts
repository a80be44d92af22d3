// `npm run bot`: the Discord bot as a process. Every failure to start is one sentence.
import { existsSync } from "node:fs";
import { parseArgs } from "node:util";
import { REST } from "discord.js";
import { Routes } from "discord-api-types/v10";
import { newTiller } from "../../shared/client.ts";
import { overNetwork } from "../../shared/client-calls.ts";
import { COMMANDS } from "./commands/index.ts";
import { deploy } from "./deploy.ts";
import { startGateway } from "./gateway.ts";

const HELP = `npm run bot -- [deploy] [options]

Connects the Discord bot and answers until Ctrl-C. With "deploy": tells Discord the bot's commands, and prints what changes.

  --guild ID      deploy: to this server only, where they show at once
  --no-messages   do not ask to read messages: /chat is then answered by its Reply button only
  --help          this text

Settings, from the environment or a file .env:

  DISCORD_TOKEN         the bot's token, from the Bot page of your application
  TILLER_SERVICE_KEY    lets the bot act for Discord users: npm start -- --bot-key makes one for this machine
  TILLER_URL            where Tiller is (http://127.0.0.1:8787)
  DISCORD_API           where Discord's API is (https://discord.com/api)`;

const ENV_FILE = ".env";

async function main(): Promise<void> {
  const { values, positionals } = readArguments();
  if (values.help) return console.log(HELP);
  const [verb, ...rest] = positionals;
  if (rest.length > 0 || (verb !== undefined && verb !== "deploy"))
    throw new Error(`There is no "${positionals.join(" ")}": npm run bot -- --help tells what there is.`);
  if (existsSync(ENV_FILE)) process.loadEnvFile(ENV_FILE);
  const token = setting("DISCORD_TOKEN", "copy it from the Bot page of your application: https://discord.com/developers/applications");
  const api = process.env.DISCORD_API || "https://discord.com/api";
  if (verb === "deploy") return deployCommands(token, api, values.guild);
  if (values.guild !== undefined) throw new Error("--guild belongs to deploy: npm run bot -- deploy --guild ID.");
  const url = (process.env.TILLER_URL || "http://127.0.0.1:8787").replace(/\/+$/, "");
  const key = setting("TILLER_SERVICE_KEY", "npm start -- --bot-key makes one for this machine");
  const tiller = newTiller(url, overNetwork(key, fetch));
  // Told now rather than to the first person who asks something.
  await tiller.notes.get("start").catch((error: Error) => {
    throw new Error(`Tiller at ${url} does not take the bot: ${error.message}`);
  });
  const log = (line: object) => console.error(JSON.stringify({ time: new Date().toISOString(), ...line }));
  const gateway = await startGateway({ tiller, token, api, messages: values["no-messages"] !== true, log });
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    process.once(signal, () => {
      console.log("\nStopping.");
      void gateway.close().finally(() => process.exit(0));
    });
  }
  console.log(`The bot ${gateway.name} is connected, and steers with ${url}. Ctrl-C ends it; what is under way goes on at the next start.`);
}

async function deployCommands(token: string, api: string, guildId: string | undefined): Promise<void> {
  const rest = new REST({ api }).setToken(token);
  const { id } = (await rest.get(Routes.currentApplication())) as { id: string };
  await deploy({ rest, applicationId: id, wanted: COMMANDS.map(({ data }) => data), guildId, say: (line) => console.log(line) });
}

function readArguments() {
  try {
    return parseArgs({
      options: { guild: { type: "string" }, "no-messages": { type: "boolean" }, help: { type: "boolean", short: "h" } },
      allowPositionals: true,
    });
  } catch (error) {
    throw new Error(`${(error as Error).message.split(". ")[0]}: npm run bot -- --help tells what there is.`);
  }
}

function setting(name: string, hint: string): string {
  const value = process.env[name];
  if (value) return value;
  throw new Error(`${name} is not set: ${hint}.`);
}

main().catch((error: unknown) => {
  console.error((error as Error).message);
  process.exit(1);
});
