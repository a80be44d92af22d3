// One row of a generation: its tokens and what they make. Tokens that an earlier run generated take the same way as new ones.
import { TillerError } from "../../shared/errors.ts";
import type { GenerateRequest, RowResult } from "../../shared/protocol.ts";
import type { RowEdits } from "./edits.ts";
import type { Sequence } from "./job.ts";
import type { Kept } from "./kept.ts";
import type { Prediction } from "./sampler.ts";
import { TextStream } from "./text.ts";
import type { Tokenizer } from "./tokenizer.ts";

export interface RowPlan {
  readonly name: string;
  readonly edits: RowEdits;
  readonly prompt: readonly number[];
  /** What an earlier run generated. */
  readonly generated?: readonly number[] | undefined;
  readonly kept?: Kept | undefined;
}

export class Row implements Sequence {
  readonly name: string;
  readonly prompt: readonly number[];
  readonly edits: RowEdits;
  length = 0;
  /** What comes after the prompt, kept while the request's other rows are prefilled. */
  first: Prediction | undefined;
  readonly generated: number[] = [];
  /**
   * What an earlier run generated: taken instead of sampled. It is decoded again, step by step, because a prefill adds the same numbers in
   * another order, and a sample that lies on an edge would fall to the other side.
   */
  readonly known: readonly number[];
  /** Times each token was generated: what the penalties count. */
  readonly counts = new Map<number, number>();
  /** What its text is compared with, where that is wanted. */
  readonly kept: Kept | undefined;
  text = "";
  /** Why the text has ended. */
  reason: RowResult["finish_reason"] | undefined;
  private readonly stream: TextStream;
  private readonly most: number;
  private readonly eosIds: ReadonlySet<number>;

  constructor({ name, edits, prompt, generated = [], kept }: RowPlan, request: GenerateRequest, tokenizer: Tokenizer) {
    this.name = name;
    this.edits = edits;
    this.prompt = prompt;
    this.known = generated;
    this.kept = kept;
    this.stream = new TextStream(tokenizer, request.sampling.stop);
    this.most = request.max_tokens;
    this.eosIds = tokenizer.eosIds;
  }

  /**
   * Takes the next token.
   * @returns what it adds to the text; undefined for an end-of-text token, which is no part of the row.
   * @throws TillerError `invalid_request` when known tokens go on after the row's end: no run of the same request did that.
   */
  add(id: number): string | undefined {
    const index = this.generated.length;
    const text = this.take(id);
    if (this.reason !== undefined && this.known.length > index + 1) {
      throw new TillerError(
        "invalid_request",
        `Row '${this.name}' ends (${this.reason}) before token ${index + 1} of the ${this.known.length} it is said to have generated: give those of a run of this very request.`,
      );
    }
    return text;
  }

  private take(id: number): string | undefined {
    if (this.eosIds.has(id)) {
      this.text += this.stream.flush();
      this.reason = "stop";
      return undefined;
    }
    this.generated.push(id);
    this.counts.set(id, (this.counts.get(id) ?? 0) + 1);
    let text = this.stream.push(id);
    if (this.stream.stopped) this.reason = "stop";
    else if (this.generated.length >= this.most) {
      this.reason = "length";
      text += this.stream.flush();
    }
    this.text += text;
    return text;
  }

  get ended(): boolean {
    return this.reason !== undefined;
  }

  /** Whether nothing more is to be computed: where residuals are kept, that of its last token is. */
  get finished(): true | undefined {
    return this.ended && !this.kept?.lacks(this.generated.length) ? true : undefined;
  }

  get keeps(): number | undefined {
    return this.kept?.from;
  }

  get lastId(): number {
    return this.generated[this.generated.length - 1] as number;
  }
}
