// Generations by the names their callers gave them: found again by whoever wants to end one.
import { TillerError } from "../../shared/errors.ts";
import type { Generation } from "./generation.ts";

export class RunningNames {
  private readonly running = new Map<string, Generation>();

  /**
   * Names a generation. One that has the name is ended: its caller is gone, or has given it up.
   * @returns what makes the name free again.
   */
  take(id: string | undefined, generation: Generation): () => void {
    if (id === undefined) return () => undefined;
    this.cancel(id);
    this.running.set(id, generation);
    return () => {
      if (this.running.get(id) === generation) this.running.delete(id);
    };
  }

  /** Ends the generation of this name with `canceled`. @returns whether there was one. */
  cancel(id: string): boolean {
    const generation = this.running.get(id);
    if (generation === undefined || generation.ended) return false;
    this.running.delete(id);
    generation.fail(new TillerError("canceled"));
    return true;
  }
}
