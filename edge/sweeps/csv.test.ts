import { expect, it } from "vitest";
import { toCsv } from "./csv.ts";
import { testSweep } from "./test-result.ts";

/** RFC 4180, read by its grammar: fields by name, for each line after the first. */
function parse(csv: string): Record<string, string>[] {
  const lines: string[][] = [[]];
  let rest = csv;
  while (rest !== "") {
    const [all = "", quoted, plain = "", end = ""] = /^(?:"((?:[^"]|"")*)"|([^",\r\n]*))(,|\r\n)/.exec(rest) ?? [];
    if (all === "") throw new Error(`not CSV: ${JSON.stringify(rest.slice(0, 40))}`);
    lines.at(-1)?.push(quoted?.replaceAll('""', '"') ?? plain);
    rest = rest.slice(all.length);
    if (end === "\r\n") lines.push([]);
  }
  expect(lines.pop()).toEqual([]);
  const [header = [], ...rows] = lines;
  for (const row of rows) expect(row.length).toBe(header.length);
  return rows.map((row) => Object.fromEntries(header.map((name, i) => [name, row[i] ?? ""])));
}

const ODD = ['said "no", and left', "two\nlines\r\n", "comma, comma", "", " spaces ", "Söhne 🙂 = +", '"'];

it("has a line for every text, the baseline's first, and gives every text back", () => {
  const sweep = testSweep({ text: (cell, row) => `${ODD[(cell + row + ODD.length) % ODD.length]}`, prompts: ["one, two", 'the "other"'] });
  const lines = parse(toCsv(sweep));
  const rows = [...sweep.baseline.rows, ...sweep.cells.flatMap((cell) => cell.rows)];
  expect(lines.map(({ text }) => text)).toEqual(rows.map(({ text }) => text));
  expect(lines.map(({ prompt, promptIndex, seed }) => [prompt, promptIndex, seed])).toEqual(
    rows.map(({ prompt, seed }) => [sweep.prompts[prompt], String(prompt), String(seed)]),
  );
  const baseline = lines.slice(0, sweep.baseline.rows.length);
  for (const line of baseline)
    expect(line).toMatchObject({ label: "baseline", layer: "", method: "", strength: "0", cell_success: "0.125" });
});

it("says of each text where it belongs, its own numbers and those of its cell", () => {
  const sweep = testSweep({ labels: ["joy", "fear"], layers: [2, 5], methods: ["SIMPLE_ADDITIVE", "ORTHOGONAL_DECOMP"], seeds: [7] });
  const lines = parse(toCsv(sweep)).slice(sweep.baseline.rows.length);
  const wanted = sweep.cells.flatMap(({ column, method, strength, metrics, rows }) =>
    rows.map((row) => ({
      ...{ label: sweep.columns[column]?.label, layer: String(sweep.columns[column]?.layer), hookName: sweep.columns[column]?.hookName },
      ...{ method, strength: String(strength), success: String(row.success), score: String(row.score), kl: String(row.kl), tokens: "48" },
      ...{ cell_perplexity: String(metrics?.perplexity), cell_dist2: String(metrics?.dist2), error: "" },
    })),
  );
  expect(lines).toMatchObject(wanted);
});

it.each(["=1+1", "+1", "-1 day", "@home", "\tx", "\rx"])("puts an apostrophe before %j, which a spreadsheet would compute", (text) => {
  const [line] = parse(toCsv(testSweep({ text: () => text, prompts: [text], labels: [text] }))).slice(-1);
  expect([line?.text, line?.prompt, line?.label]).toEqual([`'${text}`, `'${text}`, `'${text}`]);
});

it("leaves negative numbers numbers", () => {
  expect(parse(toCsv(testSweep({ strengths: [-10] }))).at(-1)).toMatchObject({ strength: "-10" });
});

it("has one line for a cell that failed, with its error", () => {
  const sweep = testSweep({ strengths: [5, 10], metrics: (_, strength) => (strength === 10 ? null : {}) });
  const lines = parse(toCsv(sweep));
  expect(lines.length).toBe(2 * 4 + 1);
  expect(lines.at(-1)).toMatchObject({ strength: "10", text: "", error: "The engine failed.", cell_success: "" });
});
