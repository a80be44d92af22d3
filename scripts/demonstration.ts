// One steer through the edge, and how a terminal shows it.
import { readFile } from "node:fs/promises";
import path from "node:path";
import { styleText } from "node:util";

/** The body of POST /api/steer as a model's tiller.json suggests it. */
export interface SteerBody {
  readonly prompt: string;
  readonly modelId: string;
  readonly features: readonly { readonly modelId: string; readonly layer: string; readonly index: number; readonly strength: number }[];
  readonly [setting: string]: unknown;
}

/** The part of the answer that is shown. */
export interface SteerAnswer {
  readonly DEFAULT: string;
  readonly STEERED: string;
  readonly shareUrl: string;
  readonly receipts: readonly {
    readonly point: string;
    readonly method: string;
    readonly strength: number;
    readonly positions: number;
    readonly positions_changed: number;
    readonly mean_relative_delta: number;
  }[];
}

/**
 * The demonstration of the first model directory that has one in its tiller.json; undefined when none has.
 * @throws Error naming a tiller.json that cannot be read as JSON.
 */
export async function findDemonstration(directories: readonly string[]): Promise<SteerBody | undefined> {
  for (const directory of directories) {
    const file = path.join(directory, "tiller.json");
    const text = await readFile(file, "utf8").catch(() => undefined);
    if (text === undefined) continue;
    let demo: (Omit<SteerBody, "modelId"> & { modelId?: string }) | undefined;
    try {
      demo = (JSON.parse(text) as { demo?: typeof demo }).demo;
    } catch {
      throw new Error(`${file} is not JSON: correct it or restore it from git.`);
    }
    if (demo === undefined) continue;
    const { prompt, modelId = path.basename(path.resolve(directory)), features, ...settings } = demo;
    return { prompt: prompt as string, modelId, features: features as SteerBody["features"], ...settings };
  }
  return undefined;
}

/**
 * Runs one steer.
 * @throws Error, one sentence: what the edge answered, or that the two texts are the same.
 */
export async function steer(edgeUrl: string, key: string, body: SteerBody): Promise<SteerAnswer> {
  const response = await fetch(`${edgeUrl}/api/steer`, {
    method: "POST",
    headers: { "content-type": "application/json", "x-api-key": key },
    body: JSON.stringify(body),
  });
  const text = await response.text();
  let answer: SteerAnswer & { readonly message?: string };
  try {
    answer = JSON.parse(text) as typeof answer;
  } catch {
    throw new Error(`The demonstration failed: /api/steer answered ${response.status} without JSON.`);
  }
  if (!response.ok) throw new Error(`The demonstration failed: /api/steer answered ${response.status}: ${answer.message ?? text}`);
  if (answer.STEERED === answer.DEFAULT) {
    throw new Error("The demonstration failed: the steered text is the default text, so the edit in tiller.json moves nothing.");
  }
  return answer;
}

export interface Screen {
  /** Characters per line. */
  readonly width: number;
  readonly color: boolean;
}

const NARROWEST_COLUMN = 28;
const BETWEEN = " │ ";

/** The demonstration as lines: prompt, both texts side by side (one below the other when the screen is narrow), receipts, links. */
export function renderDemonstration(body: SteerBody, answer: SteerAnswer, edgeUrl: string, screen: Screen): string[] {
  const paint = (format: Parameters<typeof styleText>[0], text: string) =>
    screen.color ? styleText(format, text, { validateStream: false }) : text;
  const columns = Math.floor((screen.width - BETWEEN.length) / 2);
  const sides = [
    { name: "DEFAULT", text: answer.DEFAULT, color: "cyan" },
    { name: "STEERED", text: answer.STEERED, color: "green" },
  ] as const;
  const lines = [paint("bold", "PROMPT"), ...wrap(body.prompt, screen.width), ""];
  if (columns < NARROWEST_COLUMN) {
    for (const { name, text, color } of sides) {
      lines.push(paint(["bold", color], name), ...wrap(text, screen.width).map((line) => paint(color, line)), "");
    }
  } else {
    const [left, right] = sides.map(({ name, text, color }): Cell[] => [
      { line: name, format: ["bold", color] as const },
      ...wrap(text, columns).map((line) => ({ line, format: [color] as const })),
    ]) as [Cell[], Cell[]];
    for (let i = 0; i < Math.max(left.length, right.length); i++) {
      const [a, b] = [left[i], right[i]];
      const leftText = paintCell(paint, a) + " ".repeat(columns - lengthOf(a?.line ?? ""));
      lines.push((leftText + paint("dim", BETWEEN) + paintCell(paint, b)).trimEnd());
    }
    lines.push("");
  }
  for (const receipt of answer.receipts) {
    lines.push(
      `Receipt: ${receipt.method} at ${receipt.point}, strength ${receipt.strength}, changed ${receipt.positions_changed} of ${receipt.positions} ` +
        `positions by ${(receipt.mean_relative_delta * 100).toFixed(1)}% of the residual's length on average.`,
    );
  }
  lines.push("", paint("bold", "The same with curl:"), curlOf(body, edgeUrl), "");
  lines.push(`Share  ${answer.shareUrl}`, `Docs   ${edgeUrl}/docs`);
  return lines;
}

type Cell = { readonly line: string; readonly format: readonly ("bold" | "cyan" | "green")[] };
const paintCell = (paint: (format: Parameters<typeof styleText>[0], text: string) => string, cell: Cell | undefined): string =>
  cell === undefined ? "" : paint([...cell.format], cell.line);

/** A command that can be pasted into a shell as it is. */
export function curlOf(body: SteerBody, edgeUrl: string): string {
  const json = JSON.stringify(body).replaceAll("'", `'\\''`);
  return `curl -s ${edgeUrl}/api/steer -H 'content-type: application/json' -d '${json}'`;
}

const lengthOf = (text: string): number => [...text].length;

/** A model may write escape sequences; a terminal must not act on them. */
const CONTROL = /(?!\t)\p{Cc}/gu;

/** Breaks a text at spaces into lines of at most `width` characters; its own line breaks stay. */
export function wrap(text: string, width: number): string[] {
  const lines: string[] = [];
  for (const paragraph of text.trim().split(/\r?\n/)) {
    let line = "";
    for (let word of paragraph.replaceAll(CONTROL, "\u{fffd}").split(/[ \t]+/)) {
      while (lengthOf(word) > width) {
        const room = line === "" ? width : 0;
        if (room === 0) {
          lines.push(line);
          line = "";
          continue;
        }
        lines.push([...word].slice(0, width).join(""));
        word = [...word].slice(width).join("");
      }
      if (line !== "" && lengthOf(line) + 1 + lengthOf(word) > width) {
        lines.push(line);
        line = word;
      } else line = line === "" ? word : `${line} ${word}`;
    }
    lines.push(line);
  }
  return lines;
}
