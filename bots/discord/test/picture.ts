// Draws docs/discord-steer.png and docs/discord-sweep.png: answers of the bot as Discord shows them, from the very payloads the bot sends.
//   node scripts/run.mjs bots/discord/test/picture.ts      (needs chromium)
import { execFileSync } from "node:child_process";
import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { ROOT } from "../../../scripts/edge-bundle.ts";
import type { FakeMessage } from "./state.ts";
import { startWorld } from "./world.ts";

const STYLES = ["#5865f2", "#5865f2", "#4e5058", "#248046", "#da373c", "#4e5058"];
const PROMPT = { prompt: "One day a little girl", feature: "3-tales-directions/0" };
const WORDS = "happy, smiled, party, excited, wonderful, hug, hugs, love, loved, fun, friends, laughed";

const PICTURES = [
  { name: "steer", size: "720,440", options: { ...PROMPT, strength: 11, tokens: 48, seed: 7, temperature: 0.6 }, done: /changed/ },
  { name: "sweep", size: "720,970", options: { ...PROMPT, words: WORDS, seeds: 8 }, done: /in every row/ },
] as const;

const world = await startWorld();
try {
  await world.runBot(["deploy"]);
  await world.startBot();
  const at = { user: world.discord.user("ada"), channel: world.discord.channel({ guild: world.discord.guild() }) };
  for (const { name, size, options, done } of PICTURES) {
    const asked = world.discord.command(name, options, at);
    const message = await asked.until(({ embeds }) => done.test(embeds[0]?.footer?.text ?? ""));
    const file = path.join(mkdtempSync(path.join(tmpdir(), "tiller-picture-")), "message.html");
    writeFileSync(file, await toHtml(message));
    const out = path.join(ROOT, "docs", `discord-${name}.png`);
    execFileSync(
      "chromium",
      ["--headless", "--no-sandbox", "--hide-scrollbars", `--window-size=${size}`, `--screenshot=${out}`, `file://${file}`],
      { stdio: "ignore" },
    );
    console.log(out);
  }
} finally {
  await world.close();
}

async function toHtml({ embeds: [embed], components, attachments }: FakeMessage): Promise<string> {
  const text = (written: string) =>
    escapeHtml(
      written
        .replace(/```\n([\s\S]+?)\n```/g, "\ue002$1\ue003")
        .replace(/\*\*(.+?)\*\*/g, "\ue000$1\ue001")
        .replace(/\\(.)/g, "$1"),
    )
      .replace(/\ue000/g, "<b>")
      .replace(/\ue001/g, "</b>")
      .replace(/\ue002/g, "<pre>")
      .replace(/\ue003/g, "</pre>");
  const picture = attachments.find(({ filename }) => embed?.image?.url === `attachment://${filename}`);
  const image =
    picture === undefined
      ? ""
      : `<img src="data:image/png;base64,${Buffer.from(await (await fetch(picture.url)).arrayBuffer()).toString("base64")}">`;
  const rows = components.map(({ components: parts }) => {
    const drawn = parts.map((part) => {
      if (part.type === 3)
        return `<span class="select">${escapeHtml(part.options?.find(({ value }) => value === "1")?.label ?? "")}<i>as it is</i><b>⌄</b></span>`;
      const style = (part as { style?: number }).style ?? 2;
      return `<span class="button" style="background:${STYLES[style]}">${escapeHtml(part.label ?? "")}${part.url === undefined ? "" : " ↗"}</span>`;
    });
    return `<div class="row">${drawn.join("")}</div>`;
  });
  const fields = (embed?.fields ?? []).map(
    ({ name, value, inline }) => `<div${inline ? "" : ' class="wide"'}><b>${name}</b><br>${text(value)}</div>`,
  );
  return `<!doctype html><meta charset="utf-8"><style>
body{margin:0;background:#313338;color:#dbdee1;font:15px/1.4 "Noto Sans","DejaVu Sans",sans-serif;padding:20px}
.who{font-weight:600;color:#f2f3f5}.tag{background:#5865f2;border-radius:3px;font-size:10px;padding:1px 5px;margin-left:6px;color:#fff}
.embed{margin:8px 0;background:#2b2d31;border-left:4px solid #${(0x5b6ee1).toString(16)};border-radius:4px;padding:12px 16px;max-width:620px}
.text{white-space:pre-line}.title{color:#00a8fc;font-weight:600;margin-bottom:6px}.fields{display:grid;grid-template-columns:1fr 1fr;gap:16px;margin:10px 0;font-size:14px;white-space:pre-line}
.wide{grid-column:1/-1}pre{margin:4px 0 0;padding:8px;background:#1e1f22;border-radius:4px;font:13px/1.3 "DejaVu Sans Mono",monospace}
img{width:100%;border-radius:4px;margin-bottom:8px}.foot{font-size:12px;color:#b5bac1}.row{display:flex;gap:8px;margin-top:8px}.button{color:#fff;border-radius:8px;padding:6px 16px;font-size:14px;font-weight:500}
.select{background:#1e1f22;border-radius:8px;padding:8px 14px;width:400px;display:flex;justify-content:space-between}.select i{color:#949ba4;font-size:12px}
</style><div class="who">tiller<span class="tag">APP</span></div><div class="embed"><div class="title">${escapeHtml(embed?.title ?? "")}</div>
<div class="text">${text(embed?.description ?? "")}</div><div class="fields">${fields.join("")}</div>${image}<div class="foot">${escapeHtml(embed?.footer?.text ?? "")}</div></div>${rows.join("")}`;
}

function escapeHtml(text: string): string {
  return text.replace(/[&<>"]/g, (char) => `&#${char.charCodeAt(0)};`);
}
