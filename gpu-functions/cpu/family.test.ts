import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Case, FIXTURES, Fixture, type Forward, worst } from "./fixture.ts";

const TOLERANCE = 2e-4;

describe.each(FIXTURES)("%s agrees with PyTorch at every position and every boundary", (name) => {
  let fixture: Fixture;
  beforeAll(() => {
    fixture = new Fixture(name);
  });
  afterAll(() => fixture.session.close());

  function compare(test: Case, run: Forward): void {
    for (const position of test.keep) {
      const wanted = fixture.wanted(test, position);
      const at = `${test.name} at ${position}`;
      expect(worst(run.logits[position] as Float32Array, wanted.logits), `logits of ${at}`).toBeLessThan(TOLERANCE);
      wanted.resid.forEach((resid, b) => {
        const actual = (run.resid[b] as Float32Array[])[position] as Float32Array;
        expect(worst(actual, resid), `boundary ${b} of ${at}`).toBeLessThan(TOLERANCE);
      });
    }
  }

  it("with whole prompts", async () => {
    for (const test of fixture.cases) compare(test, await fixture.forward(test.ids, fixture.rowEdits(test), test.prompt));
  });

  it("with prompts in small chunks", async () => {
    for (const test of fixture.cases) compare(test, await fixture.forward(test.ids, fixture.rowEdits(test), test.prompt, 1, 7));
  });

  it("token by token over the cache", async () => {
    for (const test of fixture.cases) compare(test, await fixture.forward(test.ids, fixture.rowEdits(test), 0));
  });

  it("with rows of different lengths in one batch", async () => {
    const rows = [
      fixture.case("plain-long"),
      fixture.case("plain-short"),
      ...fixture.cases.filter((test) => test.name === "mixed-order-middle"),
    ];
    for (const [slot, test] of rows.entries()) {
      const last = test.ids.length - 1;
      await fixture.forward(test.ids.slice(0, last), fixture.rowEdits(test), last, slot);
    }
    const step = await fixture.session.decode(
      rows.map(({ ids }) => ids.at(-1) as number),
      rows.map(({ ids }) => ids.length - 1),
    );
    rows.forEach((test, row) => {
      const wanted = fixture.wanted(test, test.ids.length - 1);
      expect(worst(step.logits(row), wanted.logits), test.name).toBeLessThan(TOLERANCE);
    });
  });
});
