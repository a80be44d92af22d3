"""The hooked decoder: one forward for every family, over a KV cache of slots, with the edits of each slot at every boundary.

Boundary b of the residual stream lies before layer b; boundary `layers` lies after the last. Everything but the matrices and the cache is
float32 whatever these are: in bfloat16 an edit of less than a 256th of a value would be rounded away, and logits would be off by as much as
a weak edit moves them. Everything is a function of tensors of fixed shapes, so that one call can be captured as a CUDA graph; nothing here
waits for the device.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from .config import Rope, Spec
from .edits import EDITS, Tables
from .weights import Layer, Linear, Norm, Weights, load


@dataclass
class Taken:
    """
    What a call is asked for besides logits.

    @param boundaries whose residual streams are wanted, after their edits: they come in `streams`, [B, T, width].
    @param measure whether edits are measured (edits.Tables.apply): [B, T, boundaries, EDITS].
    """

    boundaries: frozenset[int] = frozenset()
    measure: bool = False
    streams: dict[int, Tensor] = field(default_factory=dict)
    measured: Tensor | None = None


class Decoder:
    """
    @param slots how many conversations the cache holds.
    @param context positions of each; the model's own context when it is shorter.
    """

    def __init__(self, spec: Spec, weights: Weights, slots: int, context: int | None = None):
        self.spec, self.weights = spec, weights
        self.context = min(context or spec.context, spec.context)
        like = weights.embedding
        self.keys, self.values = (
            like.new_zeros(spec.layers, slots, self.context, spec.kv_heads, spec.head_dim) for _ in range(2)
        )
        self.cos, self.sin = (None, None) if spec.rope is None else rope_tables(spec.rope, spec.head_dim, self.context, like.device)
        if spec.embedding_scale is not None:
            self.embedding_scale = torch.tensor(spec.embedding_scale, dtype=like.dtype, device=like.device).float()
        self.tables = Tables(slots, spec.layers + 1, spec.width, like.device)

    @classmethod
    def from_directory(cls, directory: Path, device: str, dtype: torch.dtype, slots: int, context: int | None = None) -> "Decoder":
        return cls(*load(directory, torch.device(device), dtype), slots, context)

    @torch.inference_mode()
    def forward(
        self, ids: Tensor, positions: Tensor, slots: Tensor, limit: int,
        heads: int | None = None, edited: Collection[int] | None = None, taken: Taken | None = None,
    ) -> Tensor:  # fmt: skip
        """
        Runs T tokens of each of B rows, and keeps their keys and values.

        @param ids [B, T]; positions [B, T], absolute; slots [B], the row's place in cache and tables.
        @param limit no position is as large: so much of the cache is read.
        @param heads of how many last tokens logits are wanted; None = of all.
        @param edited boundaries whose tables are applied; None = all. Others must hold no edits of these slots.
        @returns logits [B, heads, vocab] in float32.
        """
        spec, w, taken = self.spec, self.weights, taken or Taken()
        edited = range(spec.layers + 1) if edited is None else edited
        if taken.measure:
            taken.measured = torch.zeros(*ids.shape, spec.layers + 1, EDITS, device=ids.device)

        def boundary(b: int, x: Tensor) -> Tensor:
            if b in edited:
                x = self.tables.apply(b, x, slots, None if taken.measured is None else taken.measured[:, :, b])
            if b in taken.boundaries:
                taken.streams[b] = x
            return x

        x = boundary(0, self.embed(ids, positions))
        for i, layer in enumerate(w.layers):
            attended = self.attend(i, layer, self.norm(x, layer.before_attention), positions, slots, limit)
            x = x + (attended if layer.after_attention is None else self.norm(attended, layer.after_attention))
            added = self.mlp(layer, self.norm(x, layer.before_mlp))
            x = x + (added if layer.after_mlp is None else self.norm(added, layer.after_mlp))
            x = boundary(i + 1, x)
        if heads is not None:
            x = x[:, x.shape[1] - heads :]
        return self.unembed(product(self.norm(x, w.last), w.head))

    def embed(self, ids: Tensor, positions: Tensor) -> Tensor:
        """The stream before the first layer, float32."""
        spec, w = self.spec, self.weights
        x = w.embedding[ids].float()
        if spec.embedding_scale is not None:
            # Rounded to the type of the matrices, as in transformers.
            x = x * self.embedding_scale
        return x if w.positions is None else x + w.positions[positions]

    def unembed(self, logits: Tensor) -> Tensor:
        cap = self.spec.logit_cap
        return logits if cap is None else cap * torch.tanh(logits / cap)

    def norm(self, x: Tensor, norm: Norm) -> Tensor:
        eps = self.spec.norm_eps
        if norm.bias is not None:
            return F.layer_norm(x, x.shape[-1:], norm.weight, norm.bias, eps)
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * norm.weight

    def mlp(self, layer: Layer, x: Tensor) -> Tensor:
        hidden = linear(x, layer.up)
        if not self.spec.gated:
            return linear(self.activate(hidden), layer.down)
        gate, up = hidden.chunk(2, -1)
        return linear(self.activate(gate) * up, layer.down)

    def activate(self, x: Tensor) -> Tensor:
        return F.silu(x) if self.spec.activation == "silu" else F.gelu(x, approximate="tanh")

    def attend(self, i: int, layer: Layer, x: Tensor, positions: Tensor, slots: Tensor, limit: int) -> Tensor:
        spec = self.spec
        (batch, length), heads, kv_heads = x.shape[:2], spec.heads, spec.kv_heads
        split = [heads, kv_heads, kv_heads]
        q, k, v = linear(x, layer.qkv).view(batch, length, sum(split), spec.head_dim).split(split, 2)
        if layer.query_norm is not None and layer.key_norm is not None:
            q, k = self.norm(q, layer.query_norm), self.norm(k, layer.key_norm)
        if self.cos is not None and self.sin is not None:
            cos, sin = self.cos[positions].unsqueeze(2), self.sin[positions].unsqueeze(2)
            q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        at = (slots.unsqueeze(1).expand_as(positions), positions)
        for cache, new in ((self.keys, k), (self.values, v)):
            cache[i].index_put_(at, new.to(cache.dtype))
        keys, values = (cache[i][slots, :limit].float() for cache in (self.keys, self.values))
        # [B, kv_heads, heads of each, T, limit]: a key's head serves several queries' heads.
        q = q.view(batch, length, kv_heads, heads // kv_heads, spec.head_dim)
        scores = torch.einsum("btghd,bsgd->bghts", q, keys) * spec.scales[i]
        if spec.score_cap is not None:
            scores = spec.score_cap * torch.tanh(scores / spec.score_cap)
        seen = torch.arange(limit, device=x.device)
        visible = seen <= positions.unsqueeze(-1)
        window = spec.windows[i]
        if window is not None:
            visible &= seen > positions.unsqueeze(-1) - window
        scores = scores.masked_fill(~visible[:, None, None], float("-inf"))
        attended = torch.einsum("bghts,bsgd->btghd", scores.softmax(-1), values)
        return linear(attended.reshape(batch, length, heads * spec.head_dim), layer.out)


def linear(x: Tensor, part: Linear) -> Tensor:
    y = product(x, part.weight)
    return y if part.bias is None else y + part.bias


def product(x: Tensor, weight: Tensor) -> Tensor:
    """
    x [..., in] times weight [out, in] transposed, float32. A matrix of 16 bits meets x as two rows of 16 bits each: what x is rounded to,
    and what that leaves of it. Rounded once, a model's activations cost as much exactness as its weights; the second row costs little where
    the product waits for the matrix to be read.
    """
    if weight.dtype == torch.float32:
        return F.linear(x, weight)
    flat = x.reshape(-1, x.shape[-1])
    high = flat.to(weight.dtype)
    return joined(times(torch.cat([high, (flat - high).to(weight.dtype)]), weight)).view(*x.shape[:-1], weight.shape[0])


def times(x: Tensor, weight: Tensor) -> Tensor:
    """x [R, in] times weight [out, in] transposed, of one type; [R, out], float32."""
    if x.dtype == torch.float32:
        return F.linear(x, weight)
    # Products of two numbers of 16 bits are exact in float32, and they are summed in it.
    return torch.mm(x, weight.T, out_dtype=torch.float32) if x.is_cuda else F.linear(x.float(), weight.float())


def joined(parts: Tensor) -> Tensor:
    """[2 R, ...] of the parts of R rows: their sums, [R, ...]."""
    return parts.view(2, -1, *parts.shape[1:]).sum(0)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turns the pairs (i, i + head_dim / 2). x: [B, T, heads, head_dim]; cos, sin: [B, T, 1, head_dim / 2]."""
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


def rope_tables(rope: Rope, head_dim: int, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """
    Cosines and sines of every position's angles, [length, head_dim / 2]. Frequencies and angles are float32, as in transformers
    (modeling_rope_utils.py): at position 100,000 an unrounded frequency turns by another angle.
    """
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim
    frequencies = 1.0 / (rope.theta**exponents)
    if rope.scaling is not None:
        frequencies = scale_frequencies(frequencies, rope.scaling)
    angles = torch.arange(length, dtype=torch.float32)[:, None] * frequencies
    return angles.cos().to(device), angles.sin().to(device)


def scale_frequencies(frequencies: Tensor, scaling: dict[str, float]) -> Tensor:
    """
    linear divides every frequency. llama3 divides those whose wavelength exceeds original / low_freq_factor, keeps those below
    original / high_freq_factor, and interpolates between.
    """
    factor = scaling["factor"]
    if "low_freq_factor" not in scaling:
        return frequencies / factor
    low, high, original = (scaling[name] for name in ("low_freq_factor", "high_freq_factor", "original_max_position_embeddings"))
    wavelengths = 2 * torch.pi / frequencies
    smooth = (original / wavelengths - low) / (high - low)
    between = (1 - smooth) * frequencies / factor + smooth * frequencies
    return torch.where(wavelengths > original / low, frequencies / factor, torch.where(wavelengths < original / high, frequencies, between))
