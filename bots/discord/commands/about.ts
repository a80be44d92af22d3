// /usage, /link and /help: about the person who asks, and about the bot.
import { ApplicationCommandType } from "discord-api-types/v10";
import type { Command } from "../command.ts";

const data = (name: string, description: string) => ({ type: ApplicationCommandType.ChatInput, name, description }) as const;

export const usage: Command = {
  data: data("usage", "How many steers you have left, and what you keep here"),
  acknowledge: () => "ephemeral",
  async run({ tiller, edit }) {
    const { steers, kept } = await tiller.usage();
    const free = steers.used === 0 ? "" : ` A used one becomes free <t:${Math.ceil(Date.now() / 1000) + steers.resetSeconds}:R>.`;
    const keeps = kept === null ? "" : `\nYou keep ${kept.vectors} vectors and ${kept.steers} steers.`;
    await edit({ content: `You have **${steers.remaining}** of ${steers.limit} steers left in this hour.${free}${keeps}` });
  },
};

export const link: Command = {
  data: data("link", "Make your Discord account and your account on the web one"),
  acknowledge: () => "ephemeral",
  async run({ tiller, edit }) {
    const { url, expiresAt } = await tiller.link();
    const until = `<t:${Math.floor(Date.parse(expiresAt) / 1000)}:R>`;
    await edit({
      content: `Open this address and sign in: ${url}\nIt works once, and until ${until}. Your vectors and steers come with you. Give it to nobody: whoever opens it connects your Discord account with theirs.`,
    });
  },
};

const HELP = `Tiller pushes a language model along a direction inside it while it writes, and shows you the text without and with the push.
**/steer** \`prompt: One day a little girl\` \`feature: happy\` writes both side by side; the buttons below make it stronger, weaker, turn it around, or try again.
**/sweep** \`prompt: …\` \`feature: happy\` \`words: happy, glad\` measures many strengths at once, draws what each does, and suggests one.
**/chat start** \`preset: …\` opens a thread where a steered model answers everybody; **/chat stop** ends it.
**/vector new** \`name: …\` \`layer: 3\` keeps a direction of your own, pasted or from a file; **derive** makes one of two files of texts; **list**, **show**, **edit** and **delete** are for those you have.
**/models** and **/presets** show what there is. **/usage** shows what you have left. **/link** connects your account on the web.
**/settings** is for those who manage this server: channels, tokens, presets.`;

export const help: Command = {
  data: data("help", "What this bot does"),
  acknowledge: () => "ephemeral",
  run: async ({ edit }) => void (await edit({ content: HELP })),
};
