// Rotary position embedding: reads how a configuration asks for it (both styles of transformers) and computes its tables.
import { z } from "zod";

const Default = z.object({ rope_type: z.literal("default") });
const Linear = z.object({ rope_type: z.literal("linear"), factor: z.number().positive() });
const Llama3 = z
  .object({
    rope_type: z.literal("llama3"),
    factor: z.number().positive(),
    low_freq_factor: z.number().positive(),
    high_freq_factor: z.number().positive(),
    original_max_position_embeddings: z.int().positive(),
  })
  .refine((scaling) => scaling.high_freq_factor > scaling.low_freq_factor, "high_freq_factor must be greater than low_freq_factor");
const Scaling = z.discriminatedUnion("rope_type", [Default, Linear, Llama3], {
  error: (issue) =>
    `rope_type ${JSON.stringify((issue.input as { rope_type?: unknown })?.rope_type)} is not supported; default, linear and llama3 are`,
});

/** What transformers 5 keeps in `rope_parameters`; transformers 4 has `rope_theta` at the top and the rest in `rope_scaling`. */
export const RopeConfig = {
  rope_theta: z.number().positive().nullish(),
  rope_scaling: z.record(z.string(), z.unknown()).nullish(),
  rope_parameters: z.record(z.string(), z.unknown()).nullish(),
  partial_rotary_factor: z.literal(1).nullish(),
};

export interface Rope {
  readonly theta: number;
  readonly scaling: z.output<typeof Scaling>;
}

/** Theta where a configuration names none. */
const DEFAULT_THETA = 10_000;

/**
 * @param context takes the place of `original_max_position_embeddings` where a llama3 scaling does not name it, as in transformers.
 * @throws ZodError or Error naming the rope type or option that is not supported.
 */
export function readRope(config: z.output<z.ZodObject<typeof RopeConfig>>, context: number): Rope {
  const given = config.rope_parameters ?? config.rope_scaling ?? {};
  const { type, rope_type = type ?? "default", rope_theta, partial_rotary_factor, ...rest } = given;
  const nested = Object.entries(rest).find(([, value]) => typeof value === "object" && value !== null);
  if (nested !== undefined)
    throw new Error(`rope_parameters of one kind of layer ('${nested[0]}') are not supported: all layers share one`);
  if ((partial_rotary_factor ?? 1) !== 1) throw new Error(`partial_rotary_factor ${partial_rotary_factor} is not supported; 1 is`);
  const scaling = Scaling.parse({ original_max_position_embeddings: context, ...rest, rope_type });
  const theta = z
    .number()
    .positive()
    .parse(rope_theta ?? config.rope_theta ?? DEFAULT_THETA);
  return { theta, scaling };
}

/**
 * The cosine or sine (`part`) of every position's angles, [length, headDim / 2]. Frequencies and angles are rounded to
 * float32 as in transformers (modeling_rope_utils.py): at position 100,000 an unrounded frequency turns by another angle.
 */
export function ropeTable(rope: Rope, headDim: number, length: number, part: (angle: number) => number): Float32Array {
  const half = headDim / 2;
  const frequencies = Float32Array.from({ length: half }, (_, i) =>
    scaled(Math.fround(1 / Math.fround(rope.theta ** Math.fround((2 * i) / headDim))), rope.scaling),
  );
  const table = new Float32Array(length * half);
  for (let position = 0; position < length; position++) {
    for (let i = 0; i < half; i++) table[position * half + i] = part(Math.fround(position * (frequencies[i] as number)));
  }
  return table;
}

/**
 * linear divides every frequency. llama3 divides those whose wavelength exceeds original / low_freq_factor, keeps those below
 * original / high_freq_factor, and interpolates between.
 */
function scaled(frequency: number, scaling: Rope["scaling"]): number {
  if (scaling.rope_type === "default") return frequency;
  if (scaling.rope_type === "linear") return frequency / scaling.factor;
  const { factor, low_freq_factor: low, high_freq_factor: high, original_max_position_embeddings: original } = scaling;
  const wavelength = (2 * Math.PI) / frequency;
  if (wavelength > original / low) return frequency / factor;
  if (wavelength < original / high) return frequency;
  const smooth = (original / wavelength - low) / (high - low);
  return ((1 - smooth) * frequency) / factor + smooth * frequency;
}
