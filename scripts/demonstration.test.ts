import { describe, expect, it } from "vitest";
import { renderDemonstration, type SteerAnswer, type SteerBody, wrap } from "./demonstration.ts";

const body: SteerBody = { prompt: "Once", modelId: "m", features: [] };
const answer: SteerAnswer = {
  DEFAULT: "one two three four five six seven eight nine ten",
  STEERED: "uno",
  shareUrl: "http://edge/steer/cm1",
  receipts: [
    { point: "blocks.1.hook_resid_pre", method: "ABLATE", strength: 0, positions: 9, positions_changed: 8, mean_relative_delta: 0.1234 },
  ],
};
const render = (width: number, color = false): string[] => renderDemonstration(body, answer, "http://edge", { width, color });

describe("the demonstration on a terminal", () => {
  it("has two columns that fit the width, wrapped at words", () => {
    expect(render(61).slice(3, 7)).toEqual([
      "DEFAULT                       │ STEERED",
      "one two three four five six   │ uno",
      "seven eight nine ten          │",
      "",
    ]);
  });

  it("has one text below the other when the screen is too narrow for columns", () => {
    expect(render(40).slice(3, 9)).toEqual(["DEFAULT", "one two three four five six seven eight", "nine ten", "", "STEERED", "uno"]);
  });

  it("has escape sequences only when colour is wanted", () => {
    expect(render(80).join("\n")).not.toContain("\u001b");
    expect(render(80, true).join("\n")).toContain("\u001b[");
  });

  it("says what each edit did", () => {
    expect(render(80)).toContain(
      "Receipt: ABLATE at blocks.1.hook_resid_pre, strength 0, changed 8 of 9 positions by 12.3% of the residual's length on average.",
    );
  });
});

describe("wrap", () => {
  it.each([
    ["a text that fits", "a b", 3, ["a b"]],
    ["a word longer than the line", "ab cdefghi", 4, ["ab", "cdef", "ghi"]],
    ["lines of its own", "a\nb", 9, ["a", "b"]],
    ["characters outside the basic plane", "🙂🙂🙂", 2, ["🙂🙂", "🙂"]],
    ["escape sequences, which the terminal must not see", "a\u001b[2Jb", 9, ["a\ufffd[2Jb"]],
    ["nothing", "", 9, [""]],
  ])("breaks %s", (_, text, width, lines) => {
    expect(wrap(text, width)).toEqual(lines);
  });
});
