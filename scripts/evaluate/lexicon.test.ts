import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { describe, expect, it } from "vitest";
import { accuracyOf, type Classifier, parseLexicon, scoreText, verdictOf } from "./lexicon.ts";
import { classifierOf, TASKS, type TaskName } from "./tasks.ts";

const lexicon = parseLexicon("# ours\ngood\t2\nvery good\t3\nbad\t-1.5\ndon't care\t-1\n", "ours.txt");
const plain: Classifier = { lexicon, negation: false, silent: 0 };
const negating: Classifier = { ...plain, negation: true };
const sideOf = (task: TaskName, text: string) => {
  const classifier = classifierOf(task, undefined);
  return verdictOf(scoreText(text, classifier), classifier);
};

describe("the classifier", () => {
  it("adds up the weights of markers, and of those that overlap takes the longest", () => {
    expect(scoreText("A good dog, a BAD cat.", plain)).toBe(0.5);
    expect(scoreText("very good, good", plain)).toBe(5);
    expect(scoreText("goodness, badly", plain)).toBe(0);
    expect(scoreText("I don’t care", plain)).toBe(-1);
  });

  it("turns a marker around behind a negation that is near", () => {
    expect(scoreText("not good", negating)).toBe(-2);
    expect(scoreText("It isn't a very good one", negating)).toBe(-3);
    expect(scoreText("It was not what we hoped for, but good", negating)).toBe(2);
    expect(scoreText("not good", plain)).toBe(2);
  });

  it("calls a text neither side when its markers say nothing, or are as strong both ways", () => {
    expect(verdictOf(0, plain)).toBe(0);
    expect(verdictOf(0.1, plain)).toBe(0);
    expect(verdictOf(-0.1, { silent: 1 })).toBe(1);
    expect([verdictOf(0.5, plain), verdictOf(-0.5, plain)]).toEqual([1, -1]);
  });

  it("tells how often it is right, undecided and wrong", () => {
    const accuracy = accuracyOf(["good", "very good", "bad", "so so"], ["bad", "fine"], plain);
    expect(accuracy).toEqual({
      texts: { positive: 4, negative: 2 },
      ...{ positive: 0.5, negative: 0.5, balanced: 0.5 },
      ...{ decided: 4 / 6, right_of_decided: 0.75 },
    });
    expect(accuracyOf(["a"], ["b"], plain).right_of_decided).toBeNull();
  });

  it("refuses a file that is no lexicon, with the line", () => {
    expect(() => parseLexicon("good\t2\nbad\n", "x.txt")).toThrow(/x\.txt: line 2 is no marker with its weight/);
    expect(() => parseLexicon("good\t0\n", "x.txt")).toThrow(/line 1/);
    expect(() => parseLexicon("good\tvery\n", "x.txt")).toThrow(/line 1/);
    expect(() => parseLexicon("# nothing\n", "x.txt")).toThrow(/has no markers/);
  });
});

describe("the lexicons that are shipped", () => {
  it("say who made them and under which terms", () => {
    const folder = path.join(import.meta.dirname, "lexicons");
    const names = readdirSync(folder);
    const tasks = Object.keys(TASKS).filter((task) => task !== "custom");
    expect(names.sort()).toEqual(tasks.map((task) => `${task}.txt`).sort());
    for (const name of names) {
      const head = readFileSync(path.join(folder, name), "utf8").split(/^[^#]/m)[0];
      expect(head, name).toMatch(/Apache-2\.0|The MIT License[\s\S]*Copyright \(c\) 2016 C\.J\. Hutto/);
    }
  });

  it.each([
    ["sentiment", "What a wonderful, happy day!", 1],
    ["sentiment", "It was not a good day, and she cried.", -1],
    ["sentiment", "The table stands in the room.", 0],
    ["politeness", "Could you please help me? Thank you!", 1],
    ["politeness", "Shut up, you idiot! Give me that.", -1],
    ["politeness", "The dog ran over the field.", 0],
    ["toxicity", "You stupid liar, get lost!", -1],
    // Nobody is insulted: that is what non-toxic means.
    ["toxicity", "The dog ran over the field.", 1],
    ["stance", "I support this law, it is a good idea.", 1],
    ["stance", "I do not support this law; we must oppose it.", -1],
  ] as const)("%s: '%s' is %i", (task, text, side) => {
    expect(sideOf(task, text)).toBe(side);
  });
});
