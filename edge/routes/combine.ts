// POST /api/vector/combine: a vector made of other vectors.
import type { Room } from "../app.ts";
import { combine } from "../directions/combine.ts";
import { CombineBody, CombinedVector } from "../directions/contract.ts";
import { mountPost, originOf } from "../route.ts";
import { toCreated } from "../vectors/contract.ts";

export function mountCombine(room: Room): void {
  mountPost(
    room,
    {
      ...{ path: "/api/vector/combine", tag: "Vectors", summary: "Make a vector of other vectors", access: "user", counted: true },
      ...{ body: CombineBody, answer: CombinedVector },
      description:
        "The sum of the terms, each times its weight; of that the part that is orthogonal to every one of `orthogonalTo`; brought to `length`. In float64, and kept as it is. A result that is zero is refused.",
    },
    async (body, { userId }, c) => {
      await room.vectors.checkRoom(userId, 1);
      const { vector, cosines } = await combine(body, room, userId, c.req.raw.signal);
      const [row] = await room.vectors.create([vector]);
      if (row === undefined) throw new Error("no vector was written");
      return { ...toCreated(row, originOf(room, c)), cosines: [...cosines] };
    },
  );
}
