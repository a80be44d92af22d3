import { afterEach, describe, expect, it, vi } from "vitest";
import { newModels } from "./models.ts";
import { config, NO_ENGINE } from "./test/worker/client.ts";

afterEach(() => {
  vi.restoreAllMocks();
});

describe("the list of models", () => {
  const setUp = () => {
    const fetches = vi.spyOn(globalThis, "fetch");
    const clock = { now: 1_000_000 };
    return { fetches, clock, models: newModels(config(), () => clock.now) };
  };

  it("is asked for once a minute", async () => {
    const { fetches, clock, models } = setUp();
    await models.get("scripted");
    clock.now += 59_000;
    await models.get("scripted");
    expect(fetches).toHaveBeenCalledTimes(1);
    clock.now += 1_000;
    await models.get("scripted");
    expect(fetches).toHaveBeenCalledTimes(2);
  });

  it("is asked for again for a model that is not in it, but not for every guess", async () => {
    const { fetches, clock, models } = setUp();
    await models.get("scripted");
    clock.now += 5_000;
    expect(await models.find("scripted-new")).toBeUndefined();
    expect(fetches).toHaveBeenCalledTimes(2);
    expect(await models.find("scripted-newer")).toBeUndefined();
    expect(fetches).toHaveBeenCalledTimes(2);
  });

  it("is not remembered when asking failed", async () => {
    const { fetches, models } = setUp();
    fetches.mockRejectedValueOnce(new Error("connection refused"));
    await expect(models.get("scripted")).rejects.toMatchObject({ code: "engine_unavailable" });
    expect((await models.get("scripted")).info.id).toBe("scripted");
  });

  it("has the models of the engines that answer, each once", async () => {
    const twice = [...config().engines, ...config().engines, ...NO_ENGINE];
    const ids = (await newModels({ ...config(), engines: twice }).list()).map(({ id }) => id);
    expect(ids).toContain("scripted");
    expect(ids).toEqual([...new Set(ids)]);
    await expect(newModels({ ...config(), engines: NO_ENGINE }).list()).rejects.toMatchObject({ code: "engine_unavailable" });
  });
});
