// How promised steers are begun and shown: both texts side by side as they grow.
import type { Keeper } from "./promised.ts";
import { steerMessage } from "./render.ts";

const sum = (numbers: readonly number[]): number => numbers.reduce((all, each) => all + each, 0);

export const STEERS: Keeper<"steer"> = {
  start: async (promised, user) => ({ promised, job: await user.startSteer("steer", promised.body, promised.id) }),
  growing: ({ view }, { done, ...now }) => steerMessage(view, { ...now, tokens: done }),
  async done({ view }, { result, partial }) {
    if (result === null) return steerMessage(view, { state: "canceled", texts: partial ?? { STEERED: "", DEFAULT: "" } });
    const { id, shareUrl, receipts, usage, STEERED, DEFAULT } = result;
    return steerMessage(view, {
      ...{ state: "succeeded", steerId: id, shareUrl, tokens: usage.completionTokens, texts: { STEERED, DEFAULT } },
      changed: { positions: sum(receipts.map((each) => each.positions_changed)), of: sum(receipts.map((each) => each.positions)) },
    });
  },
};
