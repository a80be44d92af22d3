import { describe, expect, it } from "vitest";
import { readBoth, readSide } from "./files.ts";

const file = (name: string, content: string | Uint8Array) => ({
  name,
  bytes: typeof content === "string" ? new TextEncoder().encode(content) : content,
});
const bytes = (...parts: (string | number[])[]) =>
  Uint8Array.from(parts.flatMap((part) => (typeof part === "string" ? [...new TextEncoder().encode(part)] : part)));
const BOM = [0xef, 0xbb, 0xbf];

const SIDES = { positive: ["Good day, sir", 'She said "yes"'], negative: ["Go away"] };
const PAIRS = [
  { prompt: "How are you?", positive: "Fine, thanks", negative: "Bad" },
  { prompt: "And now?", positive: "Better", negative: "Worse" },
];

describe("a file of one side", () => {
  it.each([
    ["lines", "a.txt", "one\n\n two \r\n  \nthree"],
    ["lines of an old Mac", "a.txt", "one\r two \rthree\r"],
    ["a file without a name", "positive", "one\n two \nthree\n"],
    ["CSV", "a.csv", "text\none\n two \n\nthree\n"],
    ["a list in JSON", "a.json", '["one", " two ", "", "three"]'],
    ["objects in JSON", "a.json", '[{"text": "one"}, {"text": " two "}, {"text": "three"}]'],
    ["JSONL", "a.jsonl", '{"text": "one"}\n\n{"text": " two "}\n"three"\n'],
  ])("is read from %s: every text as it stands, and no empty one", (_, name, content) => {
    expect(readSide(file(name, content))).toEqual(["one", " two ", "three"]);
  });

  it("may begin with a byte order mark, and speak any language", () => {
    expect(readSide(file("a.txt", bytes(BOM, "Grüße\n你好\n👋")))).toEqual(["Grüße", "你好", "👋"]);
  });

  it.each([
    ["bytes that are no UTF-8", "a.txt", bytes("one\ntwo\n", [0xff, 0xfe], "\nthree"), /^a\.txt, line 3 is not UTF-8/],
    ["Latin 1 in the last line", "a.txt", bytes("one\n", [0xe9]), /^a\.txt, line 2 is not UTF-8/],
    ["another column", "a.csv", "text,label\nx,1\n", /^a\.csv, line 2 has 'label': a file of one side has the column text alone/],
    ["a column that nobody knows", "a.csv", "sentence\nx\n", /^a\.csv, line 1: the column 'sentence' is not known/],
    ["a number for a text", "a.json", '["one", 2]', /^a\.json, item 2 must be a text, or an object with texts/],
    ["an object with a number", "a.jsonl", '{"text": "one"}\n{"text": 2}', /^a\.jsonl, line 2: text must be a text/],
    ["no list", "a.json", '{"text": "one"}', /^a\.json must be a list/],
    ["JSONL with a bad line", "a.jsonl", '"one"\n{"text": }\n', /^a\.jsonl, line 2 is no JSON/],
    ["bad JSON", "a.json", '["one",\n"two"\n"three"]', /^a\.json is no JSON: .*\(line 3\)/],
  ])("is refused with %s", (_, name, content, words) => {
    expect(() => readSide(file(name, content))).toThrow(words);
  });
});

describe("a file of both sides", () => {
  const csv = (...lines: string[]) => lines.join("\n");
  const text = ['"Good day, sir"', '"She said ""yes"""', "Go away"];
  it.each([
    ["labels in CSV", "a.csv", csv("text,label", `${text[0]},positive`, `${text[2]},negative`, `${text[1]},pos`)],
    ["labels first, with capitals and spaces", "a.csv", csv("Label , TEXT", `Pos,${text[0]}`, `NEG,${text[2]}`, `+,${text[1]}`)],
    ["labels that are numbers", "a.csv", csv("text,label", `${text[0]},1`, `${text[1]},1`, `${text[2]},0`)],
    ["ends of lines of Windows", "a.csv", `text,label\r\n${text[0]},true\r\n${text[1]},+\r\n${text[2]},-\r\n`],
    ["tabs", "a.tsv", csv("text\tlabel", `${text[0]}\t1`, `${text[1]}\t1`, `${text[2]}\t0`)],
    ["semicolons", "a.csv", csv("text;label", `${text[0]};1`, `${text[1]};1`, `${text[2]};0`)],
    ["a name that says nothing", "data", csv("text,label", `${text[0]},1`, `${text[1]},1`, `${text[2]},0`)],
    ["columns, one longer than the other", "a.csv", csv("positive,negative", `${text[0]},${text[2]}`, `${text[1]},`)],
    [
      "labels in JSONL",
      "a.jsonl",
      csv('{"text":"Good day, sir","label":1}', '{"label":true,"text":"She said \\"yes\\""}', '{"text":"Go away","label":0}'),
    ],
    [
      "JSONL that is called JSON",
      "a.json",
      csv('{"text":"Good day, sir","label":1}', '{"label":1,"text":"She said \\"yes\\""}', '{"text":"Go away","label":0}'),
    ],
    [
      "labels in JSON",
      "a.json",
      JSON.stringify([...SIDES.positive.map((each) => ({ text: each, label: "POSITIVE" })), { text: "Go away", label: false }]),
    ],
    ["columns in JSON", "a.json", JSON.stringify([{ positive: SIDES.positive[0], negative: "Go away" }, { positive: SIDES.positive[1] }])],
    ["an object in JSON", "a.json", JSON.stringify(SIDES, null, 2)],
  ])("is read from %s", (_, name, content) => {
    const { positive, negative, pairs } = readBoth(file(name, content));
    expect({ positive: positive?.map((each) => each.trim()), negative, pairs }).toEqual({ ...SIDES, pairs: undefined });
  });

  it.each([
    ["CSV", "a.csv", csv("prompt,positive,negative", 'How are you?,"Fine, thanks",Bad', "And now?,Better,Worse")],
    [
      "CSV with its columns in another order",
      "a.csv",
      csv("negative,prompt,positive", 'Bad,How are you?,"Fine, thanks"', "Worse,And now?,Better"),
    ],
    ["JSONL", "a.jsonl", PAIRS.map((pair) => JSON.stringify(pair)).join("\n")],
    ["JSON", "a.json", JSON.stringify(PAIRS)],
    ["an object in JSON", "a.json", JSON.stringify({ pairs: PAIRS })],
  ])("has pairs in %s", (_, name, content) => {
    expect(readBoth(file(name, content))).toEqual({ pairs: PAIRS });
  });

  it("keeps line ends within a quoted text", () => {
    expect(readBoth(file("a.csv", 'text,label\n"one\ntwo",1\nthree,0'))).toEqual({ positive: ["one\ntwo"], negative: ["three"] });
  });

  it.each([
    [
      "a label that is none",
      "a.csv",
      "text,label\none,1\ntwo,2\n",
      /^a\.csv, line 3: the label '2' is none of positive, pos, 1, true, \+, negative/,
    ],
    ["a label that is missing", "a.jsonl", '{"text":"one","label":1}\n{"text":"two"}', /^a\.jsonl, line 2: the label '' is none of/],
    ["a label that is a list", "a.json", '[{"text":"one","label":[1,2]}]', /^a\.json, item 1: the label '1,2' is none of/],
    [
      "a column that nobody knows",
      "a.csv",
      "text,labels\none,1\n",
      /line 1: the column 'labels' is not known.* The columns are text and label, or/,
    ],
    ["a column twice", "a.csv", "text,text\none,1\n", /line 1: the column 'text' is not known, or there twice/],
    ["columns that do not belong together", "a.csv", "text,negative\none,two\n", /^a\.csv, line 2 has text, negative; every row must have/],
    [
      "rows of two shapes",
      "a.jsonl",
      '{"text":"one","label":1}\n{"positive":"two","negative":"x"}',
      /^a\.jsonl, line 1 has text, label; every row/,
    ],
    [
      "a key that nobody knows",
      "a.jsonl",
      '{"text":"one","label":1}\n{"text":"one","label":1,"score":3}',
      /^a\.jsonl, line 2 has text, label, score;/,
    ],
    ["an object with another key", "a.json", '{"positive":["a"],"negatives":["b"]}', /^a\.json has 'negatives'/],
    [
      "an object with a bad text",
      "a.json",
      '{"positive":["a", ""],"negative":["b"]}',
      /^positive\[1\] must be a list of 1 to 5000 texts, none of them empty/,
    ],
    [
      "a pair without an answer",
      "a.csv",
      "prompt,positive,negative\na,b,c\na,b,\n",
      /^a\.csv, line 3: negative is empty, and a pair needs all/,
    ],
    ["too few cells", "a.csv", "text,label\none,1\ntwo\n", /^a\.csv is no CSV: .* on line 3/],
    ["a quote that is left open", "a.csv", 'text,label\n"one,1\n', /^a\.csv is no CSV: .*line 2/],
    ["nothing", "a.csv", "text,label\n", /^a\.csv has no texts/],
    ["an empty list", "a.json", "[]", /^a\.json has no texts/],
    ["lines alone", "a.txt", "one\ntwo\n", /^a\.txt is a plain text, which does not say what is positive/],
  ])("is refused with %s", (_, name, content, words) => {
    expect(() => readBoth(file(name, content))).toThrow(words);
  });
});
