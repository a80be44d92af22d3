"""Reads a model's config.json into one description that covers every family: the list of families is the only place that names them.

What a family does not know must not change its arithmetic, or the file is refused (the CPU engine's config.ts does the same).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

# Options that change the arithmetic of some family: one that a family does not read is refused, never ignored.
ARITHMETIC = (
    "attention_bias attention_multiplier attn_logit_softcapping clip_qkv embedding_multiplier final_logit_softcapping hidden_activation "
    "layer_types logit_scale logits_scaling mlp_bias no_rope_layers num_experts num_local_experts quantization_config "
    "query_pre_attn_scalar residual_multiplier rope_interleaved sliding_window use_bidirectional_attention use_qk_norm use_sliding_window"
).split()


class ConfigError(ValueError):
    """A configuration that this engine does not run: the message says which option, and what is supported."""


@dataclass(frozen=True)
class Rope:
    """Rotary position embedding. `scaling` is None, or the parameters of rope_type linear or llama3."""

    theta: float
    scaling: dict[str, Any] | None


@dataclass(frozen=True)
class Spec:
    """A decoder: pre-norm attention and MLP around one residual stream."""

    family: str
    layers: int
    width: int
    heads: int
    kv_heads: int
    head_dim: int
    inner: int
    vocab: int
    context: int
    norm_eps: float
    rms: bool
    """RMS norms; LayerNorm with mean and bias otherwise."""
    gated: bool
    """The MLP multiplies an activated gate with a second projection."""
    activation: str
    """silu or gelu_tanh."""
    tied: bool
    """The head is the embedding."""
    scales: tuple[float, ...]
    """Attention scores of each layer are multiplied by this."""
    windows: tuple[int | None, ...]
    """Keys that a query of each layer sees; None = all before it."""
    rope: Rope | None
    """None = learned positions are added to the embedding."""
    head_norm: bool = False
    sandwich: bool = False
    """Attention and MLP outputs are normed before they join the stream."""
    gain_plus_one: bool = False
    """Norm gains are stored as their difference from 1."""
    embedding_scale: float | None = None
    score_cap: float | None = None
    logit_cap: float | None = None


class Reader:
    """A config.json that remembers what was asked for."""

    def __init__(self, values: dict[str, Any]):
        self.values = values
        self.read: set[str] = set()

    def get(self, name: str, default: Any = None) -> Any:
        self.read.add(name)
        value = self.values.get(name)
        return default if value is None else value

    def number(self, name: str, default: float | None = None) -> float:
        value = self.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            raise ConfigError(f"{name} must be a number above 0; it is {value!r}")
        return value

    def count(self, name: str, default: int | None = None) -> int:
        value = self.number(name, default)
        if value != int(value):
            raise ConfigError(f"{name} must be a whole number; it is {value!r}")
        return int(value)

    def one_of(self, name: str, allowed: tuple[Any, ...]) -> Any:
        """The first of the allowed values is the default."""
        value = self.get(name, allowed[0])
        if value not in allowed:
            raise ConfigError(f"{name} {value!r} is not supported by this family; {' or '.join(map(repr, allowed))} is")
        return value

    def finish(self) -> None:
        for name in ARITHMETIC:
            if name not in self.read and self.values.get(name) not in (None, False):
                raise ConfigError(f"{name} {self.values[name]!r} is not supported by this family; remove it if the model does not use it")


GELUS = ("gelu_new", "gelu_pytorch_tanh", "gelu_fast")


def gpt2(c: Reader) -> Spec:
    width, heads, layers = c.count("n_embd"), c.count("n_head"), c.count("n_layer")
    c.one_of("activation_function", GELUS)
    c.one_of("scale_attn_weights", (True,))
    c.one_of("tie_word_embeddings", (True,))
    by_layer = c.one_of("scale_attn_by_inverse_layer_idx", (False, True))
    base = (width // heads) ** -0.5
    return learned(
        c, "gpt2", width, heads, layers,
        inner=c.count("n_inner", 4 * width), context=c.count("n_positions"),
        scales=tuple(base / (layer + 1 if by_layer else 1) for layer in range(layers)), windows=(None,) * layers,
    )  # fmt: skip


def gpt_neo(c: Reader) -> Spec:
    width, heads, layers = c.count("hidden_size"), c.count("num_heads"), c.count("num_layers")
    c.one_of("activation_function", GELUS)
    c.one_of("tie_word_embeddings", (True,))
    kinds = [kind for group, times in c.get("attention_types", [[["global", "local"], 12]]) for _ in range(times) for kind in group]
    if len(kinds) != layers:
        raise ConfigError(f"attention_types lists {len(kinds)} layers, num_layers is {layers}")
    window = c.count("window_size", 256)
    return learned(
        c, "gpt_neo", width, heads, layers,
        inner=c.count("intermediate_size", 4 * width), context=c.count("max_position_embeddings"),
        scales=(1.0,) * layers, windows=tuple(window if kind == "local" else None for kind in kinds),
    )  # fmt: skip


def learned(c: Reader, family: str, width: int, heads: int, layers: int, **more: Any) -> Spec:
    """What models with learned positions share."""
    if width % heads:
        raise ConfigError(f"the width {width} is not a multiple of the {heads} heads")
    return Spec(
        family=family, layers=layers, width=width, heads=heads, kv_heads=heads, head_dim=width // heads, vocab=c.count("vocab_size"),
        norm_eps=c.number("layer_norm_epsilon", 1e-5), rms=False, gated=False, activation="gelu_tanh", tied=True, rope=None, **more,
    )  # fmt: skip


def llama_like(c: Reader, family: str, activation: str = "silu", tied: bool = False, head_dim: int | None = None) -> Spec:
    """Rotary attention with grouped keys, RMS norms, a gated MLP. Biases are there where the weights have them."""
    width, heads, layers = c.count("hidden_size"), c.count("num_attention_heads"), c.count("num_hidden_layers")
    kv_heads = c.count("num_key_value_heads", heads)
    if heads % kv_heads:
        raise ConfigError(f"num_attention_heads {heads} is not a multiple of num_key_value_heads {kv_heads}")
    head_dim = c.count("head_dim", head_dim or width // heads)
    context = c.count("max_position_embeddings")
    return Spec(
        family=family, layers=layers, width=width, heads=heads, kv_heads=kv_heads, head_dim=head_dim, inner=c.count("intermediate_size"),
        vocab=c.count("vocab_size"), context=context, norm_eps=c.number("rms_norm_eps", 1e-6), rms=True, gated=True, activation=activation,
        tied=c.one_of("tie_word_embeddings", (tied, not tied)), scales=(head_dim**-0.5,) * layers, windows=(None,) * layers,
        rope=read_rope(c, context),
    )  # fmt: skip


def read_rope(c: Reader, context: int) -> Rope:
    """transformers 5 keeps everything in rope_parameters; transformers 4 has rope_theta at the top and the rest in rope_scaling."""
    scaling, parameters, theta = c.get("rope_scaling"), c.get("rope_parameters"), c.get("rope_theta")
    given = dict(parameters or scaling or {})
    kind = given.pop("rope_type", given.pop("type", "default"))
    given.pop("type", None)
    theta = given.pop("rope_theta", theta) or 10_000.0
    if given.pop("partial_rotary_factor", None) not in (None, 1) or c.get("partial_rotary_factor", 1) != 1:
        raise ConfigError("partial_rotary_factor is supported at 1 only")
    if kind == "default":
        return Rope(theta, None)
    wanted = {"linear": ("factor",), "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")}.get(kind)
    if wanted is None:
        raise ConfigError(f"rope_type {kind!r} is not supported; default, linear and llama3 are")
    given.setdefault("original_max_position_embeddings", context)
    missing = [name for name in wanted if not isinstance(given.get(name), int | float)]
    if missing:
        raise ConfigError(f"rope_type {kind} needs {', '.join(missing)}")
    return Rope(theta, {name: given[name] for name in wanted})


def windows(c: Reader, layers: int, window: int | None, otherwise: Callable[[int], bool]) -> tuple[int | None, ...]:
    """`layer_types` where it is given, `otherwise` where not."""
    types = c.get("layer_types")
    if types is not None and len(types) != layers:
        raise ConfigError(f"layer_types lists {len(types)} layers, num_hidden_layers is {layers}")
    sliding = [otherwise(i) if types is None else types[i] == "sliding_attention" for i in range(layers)]
    if any(sliding) and window is None:
        raise ConfigError("sliding_window is missing, but layers with a window are asked for")
    return tuple(window if slides else None for slides in sliding)


def llama(c: Reader) -> Spec:
    c.one_of("hidden_act", ("silu",))
    c.get("attention_bias"), c.get("mlp_bias")
    return llama_like(c, "llama")


def mistral(c: Reader) -> Spec:
    c.one_of("hidden_act", ("silu",))
    spec = llama_like(c, "mistral")
    window = c.values["sliding_window"] if "sliding_window" in c.values else 4096
    c.get("sliding_window")
    return replace(spec, windows=(window,) * spec.layers)


def qwen2(c: Reader) -> Spec:
    c.one_of("hidden_act", ("silu",))
    return qwen_windows(c, llama_like(c, "qwen2"))


def qwen3(c: Reader) -> Spec:
    c.one_of("hidden_act", ("silu",))
    c.get("attention_bias")
    return replace(qwen_windows(c, llama_like(c, "qwen3", head_dim=128)), head_norm=True)


def qwen_windows(c: Reader, spec: Spec) -> Spec:
    """`sliding_window` counts only where `use_sliding_window` is set, as in transformers."""
    size, least = c.get("sliding_window", 4096), c.get("max_window_layers", 28)
    window = size if c.get("use_sliding_window", False) else None
    return replace(spec, windows=windows(c, spec.layers, window, lambda layer: window is not None and layer >= least))


def gemma(c: Reader, family: str = "gemma") -> Spec:
    # The first releases say gelu and mean its tanh form, which is what transformers runs (its pull request 29402).
    c.one_of("hidden_act", ("gelu_pytorch_tanh", "gelu"))
    c.one_of("hidden_activation", ("gelu_pytorch_tanh",))
    c.get("attention_bias")
    spec = llama_like(c, family, "gelu_tanh", tied=True, head_dim=256)
    return replace(spec, gain_plus_one=True, embedding_scale=math.sqrt(spec.width))


def gemma2(c: Reader) -> Spec:
    spec = gemma(c, "gemma2")
    window = c.values.get("sliding_window", 4096)
    c.get("sliding_window")

    def cap(name: str, default: float) -> float | None:
        c.get(name)
        return c.values.get(name, default)

    return replace(
        spec, sandwich=True, scales=(c.number("query_pre_attn_scalar", 256) ** -0.5,) * spec.layers,
        windows=windows(c, spec.layers, window, lambda layer: layer % 2 == 0),
        score_cap=cap("attn_logit_softcapping", 50.0), logit_cap=cap("final_logit_softcapping", 30.0),
    )  # fmt: skip


FAMILIES: dict[str, Callable[[Reader], Spec]] = {
    "gpt2": gpt2, "gpt_neo": gpt_neo, "llama": llama, "mistral": mistral, "qwen2": qwen2, "qwen3": qwen3, "gemma": gemma, "gemma2": gemma2,
}  # fmt: skip


def read_spec(config: dict[str, Any]) -> Spec:
    """@raises ConfigError naming the option that is not supported, and what is."""
    family = FAMILIES.get(config.get("model_type", ""))
    if family is None:
        raise ConfigError(f"model_type {config.get('model_type')!r} is not supported; {', '.join(FAMILIES)} are")
    reader = Reader(config)
    spec = family(reader)
    reader.finish()
    return spec
