// Texts of people and models inside messages: shown as they are, without markup, links or mentions, and never longer than Discord takes.

/** Other control characters than a line's end show as nothing, and format characters turn what follows around; one joins emoji. */
const withoutControls = (text: string): string => text.replace(/\r\n?/g, "\n").replace(/(?!\n|\u200d)[\p{Cc}\p{Cf}]/gu, " ");

/** Everything Discord could read as markup, a link or a mention is escaped: what was written is what is seen. */
export function neutral(text: string): string {
  return withoutControls(text).replace(/[\\*_~`|<>@#:[\]()+.-]/g, (char, at: number, all: string) =>
    isHarmless(char, at, all) ? char : `\\${char}`,
  );
}

/** Dots and dashes and plus signs only begin a list at the start of a line; a colon only matters before slashes or in an emoji's name. */
function isHarmless(char: string, at: number, text: string): boolean {
  const before = text.slice(text.lastIndexOf("\n", at - 1) + 1, at);
  if (char === "-" || char === "+") return before.trim() !== "";
  if (char === ".") return !/^\s*\d+$/.test(before) && !/www$/i.test(before.slice(-3));
  if (char === ":") return text[at + 1] === " " || text[at + 1] === "\n" || at + 1 === text.length;
  return char === "(" || char === ")" ? text[at - 1] !== "]" : false;
}

const MORE = " …";

/** At most `max` UTF-16 units of a neutral text, never within an escape or a character; `end` keeps the last ones instead of the first. */
export function cut(neutralText: string, max: number, end = false): string {
  if (neutralText.length <= max) return neutralText;
  const room = max - MORE.length;
  if (!end) {
    let stop = room;
    while (stop > 0 && splits(neutralText, stop)) stop--;
    return neutralText.slice(0, stop) + MORE;
  }
  let start = neutralText.length - room;
  while (start < neutralText.length && splits(neutralText, start)) start++;
  return `${MORE.trim()} ${neutralText.slice(start)}`;
}

function splits(text: string, at: number): boolean {
  let slashes = 0;
  while (text[at - 1 - slashes] === "\\") slashes++;
  const unit = text.charCodeAt(at);
  return slashes % 2 === 1 || (unit >= 0xdc00 && unit <= 0xdfff);
}

/** For names of choices and options, where Discord shows no markup: one line of 1 to 100 characters. */
export function oneLine(text: string, max = 100): string {
  // Discord takes no empty name: a text that shows as nothing is an ellipsis.
  const line = withoutControls(text).replace(/\s+/g, " ").trim() || "…";
  return line.length <= max ? line : `${line.slice(0, max - 1).replace(/[\ud800-\udbff]$/, "")}…`;
}

/** A strength as people write it. */
export const formatStrength = (strength: number): string => String(Number(strength.toPrecision(4)));

/** Numbers in columns, the first row being their names: a block of code, in which nothing of people's may stand. */
export function table(rows: readonly (readonly string[])[]): string {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)));
  return `\`\`\`\n${rows.map((row) => row.map((cell, column) => cell.padStart(widths[column] ?? 0)).join("  ")).join("\n")}\n\`\`\``;
}

/** A measured number as people read it; a dash where there is none. */
export const formatNumber = (value: number | null, digits = 2): string =>
  value === null ? "–" : Math.abs(value) < 1000 ? value.toFixed(digits) : value.toExponential(1);
