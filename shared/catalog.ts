// Models and autoencoders that people know by Neuronpedia's names, and where on the Hugging Face hub they lie. Data only: what is
// here was published by others, and `npm run models -- pull` fetches it.

export interface CatalogModel {
  /** Neuronpedia's id. */
  readonly id: string;
  /** Repository on the hub; the branch `main` of it. */
  readonly repo: string;
  readonly layers: number;
  /** Residual width. */
  readonly width: number;
  /** Its owner wants a licence accepted and a token sent. */
  readonly gated?: true;
  /** Repository with the tokenizer, where the model's own has none. */
  readonly tokenizer?: string;
  readonly sources?: readonly CatalogSource[];
}

/** A set of autoencoders, one per layer: source `{layer}-{set}`. */
export interface CatalogSource {
  readonly set: string;
  readonly repo: string;
  readonly layers: readonly number[];
  /** Folder of a layer's autoencoder in the repository. A `*` stands for the number closest to 100 of those that are there. */
  readonly folder: (layer: number) => string;
  /** Files of that folder, in the layout that the engines read. */
  readonly files: readonly string[];
  /** Written beside SAELens' cfg.json: what the published file does not say (sae_lens/pretrained_saes.yaml does). */
  readonly overrides?: (layer: number) => Readonly<Record<string, unknown>> | undefined;
}

const upTo = (layers: number): number[] => Array.from({ length: layers }, (_, layer) => layer);
const SAELENS = ["cfg.json", "sae_weights.safetensors"];

/**
 * Gemma Scope has several autoencoders for every layer and size, of different sparsity. The canonical one, which Neuronpedia shows,
 * is that with an average L0 closest to 100 (Lieberum et al. 2024, SAELens' gemma-scope-*-canonical).
 */
const gemmaScope = (repo: string, size: "16k" | "131k", layers: readonly number[]): CatalogSource => ({
  set: `gemmascope-res-${size}`,
  repo: `google/${repo}`,
  layers,
  folder: (layer) => `layer_${layer}/width_${size}/average_l0_*`,
  files: ["params.npz"],
});
const gemma2b = [gemmaScope("gemma-scope-2b-pt-res", "16k", upTo(26))];

const GEMMA_2B_JB: Readonly<Record<number, string>> = {
  0: "gemma_2b_blocks.0.hook_resid_post_16384_anthropic",
  6: "gemma_2b_blocks.6.hook_resid_post_16384_anthropic_fast_lr",
  10: "gemma_2b_blocks.10.hook_resid_post_16384",
  12: "gemma_2b_blocks.12.hook_resid_post_16384",
  17: "gemma_2b_blocks.17.hook_resid_post_16384",
};

const gpt2 = (id: string, repo: string, layers: number, width: number): CatalogModel => ({
  id,
  repo: `openai-community/${repo}`,
  layers,
  width,
});

export const CATALOG: readonly CatalogModel[] = [
  {
    ...gpt2("gpt2-small", "gpt2", 12, 768),
    sources: [
      {
        set: "res-jb",
        repo: "jbloom/GPT2-Small-SAEs-Reformatted",
        layers: upTo(12),
        folder: (layer) => `blocks.${layer}.hook_resid_pre`,
        files: SAELENS,
        // They were trained on TransformerLens' centred residual stream.
        overrides: () => ({ model_from_pretrained_kwargs: { center_writing_weights: true } }),
      },
    ],
  },
  gpt2("gpt2-medium", "gpt2-medium", 24, 1024),
  gpt2("gpt2-large", "gpt2-large", 36, 1280),
  gpt2("gpt2-xl", "gpt2-xl", 48, 1600),
  {
    id: "gemma-2b",
    repo: "google/gemma-2b",
    layers: 18,
    width: 2048,
    gated: true,
    sources: [
      {
        set: "res-jb",
        repo: "jbloom/Gemma-2b-Residual-Stream-SAEs",
        layers: Object.keys(GEMMA_2B_JB).map(Number),
        folder: (layer) => GEMMA_2B_JB[layer] as string,
        files: SAELENS,
        overrides: (layer) => (layer === 12 ? { norm_scaling_factor: 0.21381938399317255 } : undefined),
      },
    ],
  },
  {
    id: "gemma-2b-it",
    repo: "google/gemma-2b-it",
    layers: 18,
    width: 2048,
    gated: true,
    sources: [
      {
        set: "res-jb",
        repo: "jbloom/Gemma-2b-IT-Residual-Stream-SAEs",
        layers: [12],
        folder: () => "gemma_2b_it_blocks.12.hook_resid_post_16384",
        files: SAELENS,
      },
    ],
  },
  { id: "gemma-2-2b", repo: "google/gemma-2-2b", layers: 26, width: 2304, gated: true, sources: gemma2b },
  // Neuronpedia shows the base model's autoencoders for it.
  { id: "gemma-2-2b-it", repo: "google/gemma-2-2b-it", layers: 26, width: 2304, gated: true, sources: gemma2b },
  {
    id: "gemma-2-9b",
    repo: "google/gemma-2-9b",
    layers: 42,
    width: 3584,
    gated: true,
    sources: [gemmaScope("gemma-scope-9b-pt-res", "16k", upTo(42)), gemmaScope("gemma-scope-9b-pt-res", "131k", upTo(42))],
  },
  {
    id: "gemma-2-9b-it",
    repo: "google/gemma-2-9b-it",
    layers: 42,
    width: 3584,
    gated: true,
    sources: [gemmaScope("gemma-scope-9b-it-res", "16k", [9, 20, 31]), gemmaScope("gemma-scope-9b-it-res", "131k", [9, 20, 31])],
  },
  {
    id: "llama3.1-8b",
    repo: "meta-llama/Llama-3.1-8B",
    layers: 32,
    width: 4096,
    gated: true,
    sources: [
      {
        set: "llamascope-res-32k",
        repo: "fnlp/Llama3_1-8B-Base-LXR-8x",
        layers: upTo(32),
        folder: (layer) => `Llama3_1-8B-Base-L${layer}R-8x`,
        files: ["hyperparams.json", "checkpoints/final.safetensors"],
      },
    ],
  },
  { id: "llama3.1-8b-it", repo: "meta-llama/Llama-3.1-8B-Instruct", layers: 32, width: 4096, gated: true },
  { id: "qwen2.5-1.5b-it", repo: "Qwen/Qwen2.5-1.5B-Instruct", layers: 28, width: 1536 },
  { id: "TinyStories-33M", repo: "roneneldan/TinyStories-33M", layers: 4, width: 768, tokenizer: "EleutherAI/gpt-neo-125M" },
];
