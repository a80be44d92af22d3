// What a model family gives the engine: the model's shape and its graphs. The list of families is the only place that names them.
import type { Shape, Span, Storage, Variant, Weight } from "./blocks.ts";
import { gemma } from "./gemma.ts";
import { gemma2 } from "./gemma2.ts";
import { gptNeo } from "./gpt-neo.ts";
import { gpt2 } from "./gpt2.ts";
import { llama } from "./llama.ts";
import { mistral } from "./mistral.ts";
import { qwen2 } from "./qwen2.ts";
import { qwen3 } from "./qwen3.ts";

export interface BuiltGraph {
  /** Serialized ONNX ModelProto without weights. */
  readonly model: Uint8Array;
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  /** Every weight of the graph by name, with its shape and where its values come from. */
  readonly weights: ReadonlyMap<string, Weight>;
}

/** What happens to the residual stream's end on its way to the logits. */
export interface Output {
  /** Whether the last norm takes the mean away. */
  readonly centred: boolean;
  /** Logits x become cap tanh(x / cap); null: they stay. */
  readonly cap: number | null;
}

export interface FamilyModel {
  readonly shape: Shape;
  readonly output: Output;
  /**
   * @param storage how the matrices are held; float32 when absent.
   * @param span the whole model when absent.
   */
  build(variant: Variant, storage?: Storage, span?: Span): BuiltGraph;
}

export interface Family {
  /** `model_type` of the Hugging Face config. */
  readonly id: string;
  /** @throws ZodError or Error when the configuration asks for something this family's graph does not do. */
  load(config: unknown, tensors: ReadonlySet<string>, weightsFile: string): FamilyModel;
}

export const FAMILIES: readonly Family[] = [gpt2, gptNeo, llama, mistral, qwen2, qwen3, gemma, gemma2];
