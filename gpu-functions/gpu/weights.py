"""Reads a Hugging Face checkpoint into the decoder's own layout: one fused matrix per product, whatever the family calls its parts."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from .config import Spec, read_spec


@dataclass(frozen=True)
class Linear:
    """y = x W^T + b. weight: [out, in]; bias: [out], float32 whatever the matrix is, or None."""

    weight: Tensor
    bias: Tensor | None = None


@dataclass(frozen=True)
class Norm:
    """weight: [size]; bias: [size] for a LayerNorm, None for an RMS norm; float32 whatever the matrices are."""

    weight: Tensor
    bias: Tensor | None = None


@dataclass(frozen=True)
class Layer:
    before_attention: Norm
    qkv: Linear
    """[heads + 2 kv_heads, head_dim] flattened: queries, keys, values."""
    out: Linear
    before_mlp: Norm
    up: Linear
    """Gate and up, one below the other, where the MLP is gated."""
    down: Linear
    query_norm: Norm | None
    key_norm: Norm | None
    after_attention: Norm | None
    after_mlp: Norm | None


@dataclass(frozen=True)
class Weights:
    embedding: Tensor
    """[vocab, width]"""
    positions: Tensor | None
    """[context, width], float32, where positions are learned."""
    layers: tuple[Layer, ...]
    last: Norm
    head: Tensor
    """[vocab, width]; the embedding itself where they are tied."""


class Checkpoint:
    """The tensors of a model directory, each read straight to the device when it is asked for."""

    def __init__(self, directory: Path, device: torch.device, dtype: torch.dtype):
        index = directory / "model.safetensors.index.json"
        names = sorted(set(json.loads(index.read_text())["weight_map"].values())) if index.exists() else ["model.safetensors"]
        self.files = {}
        for name in names:
            file = safe_open(directory / name, framework="pt", device=str(device))
            self.files.update(dict.fromkeys(file.keys(), file))
        self.dtype = dtype

    def has(self, name: str) -> bool:
        return name in self.files

    def get(self, name: str, dtype: torch.dtype | None = None) -> Tensor:
        """@raises KeyError naming a tensor that the checkpoint does not have."""
        if name not in self.files:
            raise KeyError(f"the checkpoint has no tensor {name}")
        return self.files[name].get_tensor(name).to(dtype or self.dtype)

    def linear(self, *names: str, transposed: bool = False) -> Linear:
        """Products of one input as one: a part without a bias has zeros where another has one."""
        parts = [self.get(f"{name}.weight") for name in names]
        weight = torch.cat([part.T if transposed else part for part in parts]).contiguous()
        biases = [self.get(f"{name}.bias", torch.float32) if self.has(f"{name}.bias") else None for name in names]
        if all(bias is None for bias in biases):
            return Linear(weight)
        sizes = [part.shape[1 if transposed else 0] for part in parts]
        return Linear(weight, torch.cat([weight.new_zeros(n, dtype=torch.float32) if b is None else b for b, n in zip(biases, sizes, strict=True)]))

    def norm(self, name: str, plus_one: bool = False) -> Norm:
        weight = self.get(f"{name}.weight", torch.float32)
        return Norm(weight + 1 if plus_one else weight, self.get(f"{name}.bias", torch.float32) if self.has(f"{name}.bias") else None)


def load(directory: Path, device: torch.device, dtype: torch.dtype) -> tuple[Spec, Weights]:
    """
    @raises ConfigError for a configuration that is not supported, KeyError for a missing tensor.
    """
    spec = read_spec(json.loads((directory / "config.json").read_text()))
    checkpoint = Checkpoint(directory, device, dtype)
    return spec, (load_gpt if spec.rope is None else load_llama)(spec, checkpoint)


def load_gpt(spec: Spec, c: Checkpoint) -> Weights:
    """GPT-2 and GPT-Neo. GPT-2 keeps its matrices as [in, out] and its queries, keys and values packed."""
    # Saved through the language-model class the names carry a prefix; the hub's original files do not.
    root = "transformer." if c.has("transformer.wte.weight") else ""
    packed = spec.family == "gpt2"

    def layer(i: int) -> Layer:
        h = f"{root}h.{i}"
        attention = f"{h}.attn" if packed else f"{h}.attn.attention"
        qkv = [f"{attention}.c_attn"] if packed else [f"{attention}.{part}_proj" for part in "qkv"]
        return Layer(
            before_attention=c.norm(f"{h}.ln_1"), before_mlp=c.norm(f"{h}.ln_2"),
            qkv=c.linear(*qkv, transposed=packed),
            out=c.linear(f"{attention}.{'c_proj' if packed else 'out_proj'}", transposed=packed),
            up=c.linear(f"{h}.mlp.c_fc", transposed=packed), down=c.linear(f"{h}.mlp.c_proj", transposed=packed),
            query_norm=None, key_norm=None, after_attention=None, after_mlp=None,
        )  # fmt: skip

    embedding = c.get(f"{root}wte.weight")
    layers = tuple(map(layer, range(spec.layers)))
    return Weights(embedding, c.get(f"{root}wpe.weight", torch.float32), layers, c.norm(f"{root}ln_f"), embedding)


def load_llama(spec: Spec, c: Checkpoint) -> Weights:
    root = "" if c.has("embed_tokens.weight") else "model."

    def layer(i: int) -> Layer:
        at = f"{root}layers.{i}"

        def norm(name: str) -> Norm:
            return c.norm(f"{at}.{name}", spec.gain_plus_one)

        # post_attention_layernorm is the norm before the MLP where there is no sandwich, the one after attention where there is.
        return Layer(
            before_attention=norm("input_layernorm"),
            before_mlp=norm("pre_feedforward_layernorm" if spec.sandwich else "post_attention_layernorm"),
            qkv=c.linear(*[f"{at}.self_attn.{part}_proj" for part in "qkv"]), out=c.linear(f"{at}.self_attn.o_proj"),
            up=c.linear(f"{at}.mlp.gate_proj", f"{at}.mlp.up_proj"), down=c.linear(f"{at}.mlp.down_proj"),
            query_norm=norm("self_attn.q_norm") if spec.head_norm else None,
            key_norm=norm("self_attn.k_norm") if spec.head_norm else None,
            after_attention=norm("post_attention_layernorm") if spec.sandwich else None,
            after_mlp=norm("post_feedforward_layernorm") if spec.sandwich else None,
        )  # fmt: skip

    embedding = c.get(f"{root}embed_tokens.weight")
    head = embedding if spec.tied else c.get("lm_head.weight")
    return Weights(embedding, None, tuple(map(layer, range(spec.layers))), c.norm(f"{root}norm", spec.gain_plus_one), head)
