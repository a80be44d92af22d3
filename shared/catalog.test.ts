import { describe, expect, it } from "vitest";
import { parseSource } from "./address.ts";
import { CATALOG } from "./catalog.ts";

describe("the catalogue", () => {
  it("names every model once, with a repository, its layers and its width", () => {
    expect(new Set(CATALOG.map(({ id }) => id)).size).toBe(CATALOG.length);
    for (const { id, repo, layers, width } of CATALOG) {
      expect(id).toMatch(/^[A-Za-z0-9][A-Za-z0-9._-]*$/);
      expect(repo).toMatch(/^[\w.-]+\/[\w.-]+$/);
      expect(layers).toBeGreaterThan(0);
      expect(width % 64).toBe(0);
    }
  });

  it("has only autoencoders of layers that the model has, at paths that stay in their repository", () => {
    for (const { layers, sources = [] } of CATALOG) {
      expect(new Set(sources.map(({ set }) => set)).size).toBe(sources.length);
      for (const { set, layers: covered, folder, files } of sources) {
        expect(covered.length).toBeGreaterThan(0);
        for (const layer of covered) {
          expect(layer).toBeLessThan(layers);
          expect(parseSource(`${layer}-${set}`)).toEqual({ layer, name: set });
          for (const file of files) expect(`${folder(layer)}/${file}`).toMatch(/^[\w./*-]+$/);
          expect(folder(layer)).not.toContain("..");
        }
      }
    }
  });
});
