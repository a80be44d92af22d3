import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { deflateRawSync } from "node:zlib";
import { afterAll, describe, expect, it } from "vitest";
import { readData, readLines, readPrompts } from "./data.ts";

const temporary = mkdtempSync(path.join(tmpdir(), "evaluate-data-"));
afterAll(() => rmSync(temporary, { recursive: true }));
const file = (name: string, content: string | Uint8Array): string => {
  const place = path.join(temporary, name);
  writeFileSync(place, content);
  return place;
};
const sides = (place: string, highIsNegative = false) => {
  const { positive, negative } = readData(place, highIsNegative);
  return { positive, negative };
};

/** A ZIP archive; members are deflated unless they are `stored`. */
function zip(members: Readonly<Record<string, string>>, stored = false): Buffer {
  const locals: Buffer[] = [];
  const entries: Buffer[] = [];
  let offset = 0;
  for (const [name, content] of Object.entries(members)) {
    const data = stored ? Buffer.from(content) : deflateRawSync(content);
    const common = Buffer.alloc(26);
    common.writeUInt16LE(stored ? 0 : 8, 4);
    common.writeUInt32LE(data.length, 14);
    common.writeUInt32LE(Buffer.byteLength(content), 18);
    common.writeUInt16LE(Buffer.byteLength(name), 22);
    const local = Buffer.concat([Buffer.from("PK\x03\x04"), common, Buffer.from(name), data]);
    const entry = Buffer.concat([Buffer.from("PK\x01\x02\0\0"), common, Buffer.alloc(14), Buffer.from(name)]);
    entry.writeUInt32LE(offset, 42);
    locals.push(local);
    entries.push(entry);
    offset += local.length;
  }
  const end = Buffer.alloc(22);
  end.write("PK\x05\x06", "latin1");
  end.writeUInt16LE(entries.length, 8);
  end.writeUInt16LE(entries.length, 10);
  end.writeUInt32LE(Buffer.concat(entries).length, 12);
  end.writeUInt32LE(offset, 16);
  return Buffer.concat([...locals, ...entries, end]);
}

describe("files of texts with labels", () => {
  const wanted = { positive: ["a fine film", "moving , and funny"], negative: ["a bore"] };
  const pair = { "polarity/README.txt": "about", "polarity/rt.pos": "a fine film\nmoving , and funny \n", "polarity/rt.neg": "a bore\n\n" };

  it.each([false, true])("a ZIP with a file for each side (stored: %s)", (stored) => {
    expect(sides(file("polarity.zip", zip(pair, stored)))).toEqual(wanted);
  });

  it("a folder with them", () => {
    mkdirSync(path.join(temporary, "folder", "polarity"), { recursive: true });
    for (const [name, content] of Object.entries(pair)) file(path.join("folder", name), content);
    expect(sides(path.join(temporary, "folder"))).toEqual(wanted);
  });

  it("a table with tabs, in which quotes are letters", () => {
    const place = file("sst.tsv", 'sentence\tlabel\n"so good , really\t1\nit \'s "bad\t0\n');
    expect(sides(place)).toEqual({ positive: ['"so good , really'], negative: ["it 's \"bad"] });
  });

  it("a table with commas, in which quotes hold them together", () => {
    const place = file("sst.csv", '\uFEFFid,Text,Label\n1,"good, ""really""",4\n2,"two\nlines",0\n3,so so,2\n4,nice,3\n5,dull,1\n');
    expect(sides(place)).toEqual({ positive: ['good, "really"', "nice"], negative: ["two\nlines", "dull"] });
  });

  it("shares between 0 and 1, with SST's bounds", () => {
    const place = file("shares.csv", "sentence,score\na,0.0\nb,0.4\nc,0.41\nd,0.6\ne,0.61\nf,1\n");
    expect(sides(place)).toEqual({ positive: ["e", "f"], negative: ["a", "b"] });
  });

  it("stars and signs", () => {
    expect(sides(file("stars.csv", "review,stars\na,1\nb,3\nc,5\n"))).toEqual({ positive: ["c"], negative: ["a"] });
    expect(sides(file("signs.csv", "text,label\na,-1\nb,0\nc,1\n"))).toEqual({ positive: ["c"], negative: ["a"] });
  });

  it("the Stanford politeness corpus: its upper and its lower quarter", () => {
    const rows = Array.from({ length: 8 }, (_, i) => `Wikipedia,${i},"Request ${i}, please",9,${(i - 4) / 3}`);
    const place = file("politeness.csv", `Community,Id,Request,Score1,Normalized Score\n${rows.join("\n")}\n`);
    expect(sides(place)).toEqual({
      positive: ["Request 6, please", "Request 7, please"],
      negative: ["Request 0, please", "Request 1, please"],
    });
  });

  it("scores of toxicity, in which high is the negative side; words are as they say", () => {
    expect(sides(file("jigsaw.csv", "id,target,comment_text\n1,0.9,bad\n2,0.0,fine\n3,0.5,hm\n"), true)).toEqual({
      positive: ["fine"],
      negative: ["bad"],
    });
    expect(sides(file("words.csv", "text,label\na,toxic\nb,non-toxic\n"), true)).toEqual({ positive: ["b"], negative: ["a"] });
  });

  it("JSONL, and a JSON list of objects, with words for labels", () => {
    const rows = [
      { text: "we need it", label: "Support" },
      { text: "never", label: "oppose" },
      { text: "well", label: "neutral" },
    ];
    const found = { positive: ["we need it"], negative: ["never"] };
    expect(sides(file("stance.jsonl", rows.map((row) => JSON.stringify(row)).join("\n")))).toEqual(found);
    expect(sides(file("stance.json", JSON.stringify(rows)))).toEqual(found);
  });
});

describe("files of prompts", () => {
  it("JSONL as DExperts has it, or with bare prompts", () => {
    const nested =
      '{"md5_hash":"9","prompt":{"text":"The film"},"continuation":{"text":"was."},"num_positive":3}\n{"prompt":{"text":" A dog"}}\n';
    expect(readData(file("dexperts.jsonl", nested), false).prompts).toEqual(["The film", "A dog"]);
    expect(readPrompts(file("bare.jsonl", '{"prompt":"The film"}\n'))).toEqual(["The film"]);
  });

  it("a JSON list, and lines of text", () => {
    expect(readPrompts(file("list.json", '["", "That game", "I can see"]'))).toEqual(["That game", "I can see"]);
    expect(readPrompts(file("lines.txt", "One day\r\n\n  The dog \n"))).toEqual(["One day", "The dog"]);
    expect(readLines(file("lines.txt", "a\nb"))).toEqual(["a", "b"]);
  });
});

describe("a file that cannot be read", () => {
  it.each([
    ["latin1.txt", Buffer.from([0x63, 0xe9, 0x20]), /latin1\.txt is no text in UTF-8/],
    ["no-label.csv", "text,id\na,1\n", /no-label\.csv has no column for the label: it has text, id.*--positive FILE/],
    ["no-text.csv", "label,id\n1,1\n", /no column for the text/],
    ["word.csv", "text,label\na,positive\nb,meh\n", /word\.csv: 'meh' in the column 'label' is no label that is known.*impolite/],
    ["ragged.csv", "text,label\na,1,2\n", /ragged\.csv is no table that can be read: .*line 2/],
    ["head.csv", "text,label\n", /head\.csv has nothing in it but a header/],
    ["broken.jsonl", '{"prompt": "a"}\n{"prompt"\n', /broken\.jsonl: line 2 is no JSON/],
    ["empty.jsonl", '{"prompt": "a"}\n{"prompt": {"words": 1}}\n', /empty\.jsonl: row 2 has no prompt/],
    ["numbers.json", "[1, 2]", /numbers\.json must be a list of texts or a list of objects/],
    ["other.zip", zip({ "a.txt": "a" }), /other\.zip must hold one file that ends in \.pos and one that ends in \.neg/],
    ["cut.zip", zip({ "a.pos": "a", "a.neg": "b" }).subarray(0, 60), /cut\.zip: not a ZIP archive/],
  ])("%s is refused with the file and the reason", (name, content, reason) => {
    expect(() => readData(file(name, content), false)).toThrow(reason);
  });

  it("says when there is none", () => {
    expect(() => readData(path.join(temporary, "none.csv"), false)).toThrow(/none\.csv cannot be read/);
    expect(() => readPrompts(file("blank.txt", "\n\n"))).toThrow(/blank\.txt has no prompts/);
  });
});
