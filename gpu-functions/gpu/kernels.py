"""What surrounds the matrix products of a decode step, in few launches (Triton). decoder.py is the definition: a machine on which these do
not agree with it does not use them (worker.py).

What goes into a product of 16 bits is written as two parts, R rows below R rows, and what comes out is read as such (decoder.product):
`split` is how far the second part lies from the first, 0 where there is one part. Products leave their bias to who reads them.

join      adds a branch to the stream, applies the edits of the boundary, and norms what the next branch reads
turn      norms and rotates queries and keys, and keeps keys and values
attend    one query per row against its slot of the cache, in parts; merge joins the parts
gate      the activation of the MLP, times its second projection
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .config import Spec
from .edits import EDITS, SLOTS, Tables
from .weights import Linear, Norm

# Keys that a program of `attend` reads at a time, and programs that share a row and a head.
KEYS, PARTS = 64, 8
# Forms of a norm.
NONE, RMS, LAYER = 0, 1, 2


@triton.jit
def read(y, at, split, bias, column, mask, BIAS: tl.constexpr):
    """What a product gave, float32, from its parts."""
    value = tl.load(y + at, mask=mask, other=0.0)
    if split > 0:
        value += tl.load(y + split + at, mask=mask, other=0.0)
    if BIAS:
        value += tl.load(bias + column, mask=mask, other=0.0)
    return value


@triton.jit
def keep(h, at, split, value, mask, DTYPE: tl.constexpr):
    """What a product is to be given, float32, as its parts."""
    high = value.to(DTYPE)
    tl.store(h + at, high, mask=mask)
    if split > 0:
        tl.store(h + split + at, (value - high.to(tl.float32)).to(DTYPE), mask=mask)


@triton.jit
def normed(x, mask, weight, bias, at, eps, width, FORM: tl.constexpr):
    """x: float32 values of one row, 0 where masked out. Gains and biases are float32 too."""
    w = tl.load(weight + at, mask=mask, other=0.0)
    if FORM == 2:
        mean = tl.sum(x, 0) / width
        centred = tl.where(mask, x - mean, 0.0)
        variance = tl.sum(centred * centred, 0) / width
        return centred * (1.0 / tl.sqrt(variance + eps)) * w + tl.load(bias + at, mask=mask, other=0.0)
    return x * (1.0 / tl.sqrt(tl.sum(x * x, 0) / width + eps)) * w


@triton.jit
def join_kernel(
    x, y, y_bias, y_split, h, h_split, slots, count, reads, write, add, cross, functions, gain, offset, norms, measured, measured_stride,
    after, weight, bias, eps, width,
    BLOCK: tl.constexpr, BRANCH: tl.constexpr, BIAS: tl.constexpr, AFTER: tl.constexpr, EDIT: tl.constexpr, MEASURE: tl.constexpr, FORM: tl.constexpr,
    PLACES: tl.constexpr, MOST: tl.constexpr, DTYPE: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0)
    at = tl.arange(0, BLOCK)
    mask = at < width
    wide = tl.load(x + row * width + at, mask=mask, other=0.0)
    if BRANCH:
        branch = read(y, row * width + at, y_split, y_bias, at, mask, BIAS)
        if AFTER != 0:
            branch = normed(branch, mask, after, after, at, eps, width, AFTER)
        wide = wide + branch
    if EDIT:
        slot = tl.load(slots + row)
        # 0: nothing here; otherwise one more than the places that read.
        used = tl.load(count + slot)
        columns = tl.arange(0, MOST)
        relative = tl.zeros([MOST], tl.float32)
        if used > 0:
            places = tl.arange(0, PLACES)
            s = tl.zeros([PLACES], tl.float32)
            for k in range(used - 1):
                u = tl.load(reads + (slot * PLACES + k) * width + at, mask=mask, other=0.0)
                s = tl.where(places == k, tl.sum(wide * u, 0), s)
            f = functions + slot * 5 * PLACES + places
            scale, constant, low, high, edge = tl.load(f), tl.load(f + PLACES), tl.load(f + 2 * PLACES), tl.load(f + 3 * PLACES), tl.load(f + 4 * PLACES)
            g = tl.zeros([PLACES], tl.float32)
            # In order: M is strictly upper triangular, so that a place only changes those after it.
            for k in range(used - 1):
                bounded = tl.minimum(tl.maximum(s, low), high)
                every = scale * s + constant + tl.where(s > edge, bounded - s, 0.0)
                own = tl.sum(tl.where(places == k, every, 0.0), 0)
                g = tl.where(places == k, own, g)
                s = s + own * tl.load(cross + (slot * PLACES + k) * PLACES + places)
            delta = tl.load(add + slot * width + at, mask=mask, other=0.0)
            for k in range(used - 1):
                own = tl.sum(tl.where(places == k, g, 0.0), 0)
                delta += own * tl.load(write + (slot * PLACES + k) * width + at, mask=mask, other=0.0)
            if MEASURE:
                each = tl.load(offset + slot * MOST + columns)
                for k in range(used - 1):
                    own = tl.sum(tl.where(places == k, g, 0.0), 0)
                    each += own * tl.load(gain + (slot * PLACES + k) * MOST + columns)
                size = tl.abs(each) * tl.load(norms + slot * MOST + columns) / tl.sqrt(tl.sum(wide * wide, 0))
                relative = tl.where(tl.sum(delta * delta, 0) > 0, size, 0.0)
            wide = wide + delta
        if MEASURE:
            tl.store(measured + row * measured_stride + columns, relative)
    tl.store(x + row * width + at, wide, mask=mask)
    keep(h, row * width + at, h_split, normed(wide, mask, weight, bias, at, eps, width, FORM), mask, DTYPE)


@triton.jit
def turn_kernel(
    qkv, split, bias, keys, values, cos, sin, positions, slots, query_norm, key_norm, eps, heads, kv_heads, dim, context,
    BLOCK: tl.constexpr, BIAS: tl.constexpr, ROPE: tl.constexpr, HEAD_NORM: tl.constexpr, DTYPE: tl.constexpr,
):  # fmt: skip
    row, head = tl.program_id(0), tl.program_id(1)
    half = dim // 2
    at = tl.arange(0, BLOCK)
    mask = at < half
    start = (row * (heads + 2 * kv_heads) + head) * dim
    a = read(qkv, start + at, split, bias, head * dim + at, mask, BIAS)
    b = read(qkv, start + half + at, split, bias, head * dim + half + at, mask, BIAS)
    position, slot = tl.load(positions + row), tl.load(slots + row)
    if head < heads + kv_heads:
        if HEAD_NORM:
            norm = query_norm if head < heads else key_norm
            factor = 1.0 / tl.sqrt((tl.sum(a * a, 0) + tl.sum(b * b, 0)) / dim + eps)
            a *= factor * tl.load(norm + at, mask=mask, other=0.0)
            b *= factor * tl.load(norm + half + at, mask=mask, other=0.0)
        if ROPE:
            c, s = tl.load(cos + position * half + at, mask=mask, other=0.0), tl.load(sin + position * half + at, mask=mask, other=0.0)
            a, b = a * c - b * s, b * c + a * s
    if head < heads:
        tl.store(qkv + start + at, a, mask=mask)
        tl.store(qkv + start + half + at, b, mask=mask)
    else:
        is_key = head < heads + kv_heads
        own = head - heads if is_key else head - heads - kv_heads
        cache = (keys if is_key else values) + ((slot * context + position) * kv_heads + own) * dim
        tl.store(cache + at, a.to(DTYPE), mask=mask)
        tl.store(cache + half + at, b.to(DTYPE), mask=mask)


@triton.jit
def attend_kernel(
    qkv, keys, values, positions, slots, peaks, sums, parts, scale, cap, window, heads, kv_heads, group, dim, context,
    ROWS: tl.constexpr, BLOCK: tl.constexpr, SIZE: tl.constexpr, SPLITS: tl.constexpr, CAP: tl.constexpr, WINDOW: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    row, kv, part = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    position, slot = tl.load(positions + row), tl.load(slots + row).to(tl.int64)
    g, d, s = tl.arange(0, ROWS), tl.arange(0, BLOCK), tl.arange(0, SIZE)
    here = (g < group)[:, None] & (d < dim)[None, :]
    head = kv * group + g
    q = tl.load(qkv + (row * (heads + 2 * kv_heads) + head)[:, None] * dim + d[None, :], mask=here, other=0.0)
    first = tl.maximum(position - window + 1, 0) if WINDOW else 0
    length = position + 1 - first
    each = tl.cdiv(tl.cdiv(length, SPLITS), SIZE) * SIZE
    start = first + part * each
    end = tl.minimum(start + each, position + 1)
    peak = tl.full([ROWS], -float("inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    found = tl.zeros([ROWS, BLOCK], tl.float32)
    for at in range(start, end, SIZE):
        there = (at + s) < end
        offsets = ((slot * context + at + s) * kv_heads + kv)[:, None] * dim + d[None, :]
        inside = there[:, None] & (d < dim)[None, :]
        k = tl.load(keys + offsets, mask=inside, other=0.0).to(tl.float32)
        scores = tl.dot(q, tl.trans(k), input_precision=PRECISION) * scale
        if CAP:
            # tanh, of what exp can take.
            scaled = tl.minimum(tl.maximum(scores / cap, -20.0), 20.0)
            e = tl.exp(2.0 * scaled)
            scores = cap * (e - 1.0) / (e + 1.0)
        scores = tl.where(there[None, :], scores, -float("inf"))
        higher = tl.maximum(peak, tl.max(scores, 1))
        weights = tl.exp(scores - higher[:, None])
        shrink = tl.exp(peak - higher)
        v = tl.load(values + offsets, mask=inside, other=0.0).to(tl.float32)
        total = total * shrink + tl.sum(weights, 1)
        found = found * shrink[:, None] + tl.dot(weights, v, input_precision=PRECISION)
        peak = higher
    out = (row * heads + head) * SPLITS + part
    tl.store(peaks + out, peak, mask=g < group)
    tl.store(sums + out, total, mask=g < group)
    tl.store(parts + out[:, None] * dim + d[None, :], found, mask=here)


@triton.jit
def merge_kernel(peaks, sums, parts, out, split, dim, BLOCK: tl.constexpr, SPLITS: tl.constexpr, DTYPE: tl.constexpr):
    head = tl.program_id(0)
    p, d = tl.arange(0, SPLITS), tl.arange(0, BLOCK)
    peak = tl.load(peaks + head * SPLITS + p)
    share = tl.exp(peak - tl.max(peak, 0))
    total = tl.sum(tl.load(sums + head * SPLITS + p) * share, 0)
    each = tl.load(parts + (head * SPLITS + p)[:, None] * dim + d[None, :], mask=(d < dim)[None, :], other=0.0)
    keep(out, head * dim + d, split, tl.sum(each * share[:, None], 0) / total, d < dim, DTYPE)


@triton.jit
def gate_kernel(hidden, hidden_split, bias, out, out_split, inner, BIAS: tl.constexpr, GATED: tl.constexpr, SILU: tl.constexpr, BLOCK: tl.constexpr, DTYPE: tl.constexpr):
    row = tl.program_id(0)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = at < inner
    x = read(hidden, row * inner * (2 if GATED else 1) + at, hidden_split, bias, at, mask, BIAS)
    if SILU:
        active = x / (1.0 + tl.exp(-x))
    else:
        inside = 0.7978845608028654 * (x + 0.044715 * x * x * x)
        e = tl.exp(2.0 * tl.minimum(tl.maximum(inside, -20.0), 20.0))
        active = 0.5 * x * (1.0 + (e - 1.0) / (e + 1.0))
    if GATED:
        active *= read(hidden, row * inner * 2 + inner + at, hidden_split, bias, inner + at, mask, BIAS)
    keep(out, row * inner + at, out_split, active, mask, DTYPE)


TYPES = {torch.float32: tl.float32, torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}


def power(size: int, least: int = 16) -> int:
    return max(least, triton.next_power_of_2(size))


class Kernels:
    """
    The launches of one step of a model of R rows. What goes into a product is [parts R, in] of the type of the matrices and what comes out
    [parts R, out] in float32, with parts = 2 for 16 bits and 1 for 32; `part` is the product's matrix, whose bias is added here.
    """

    def __init__(self, spec: Spec, tables: Tables, dtype: torch.dtype):
        self.spec, self.tables, self.dtype = spec, tables, dtype
        self.form = RMS if spec.rms else LAYER
        self.parts = 1 if dtype == torch.float32 else 2

    def new(self, like: Tensor, rows: int, size: int) -> Tensor:
        """What a product is given."""
        return torch.empty(self.parts * rows, size, dtype=self.dtype, device=like.device)

    def split(self, parts: Tensor) -> int:
        return 0 if self.parts == 1 else parts.numel() // 2

    def join(
        self, x: Tensor, y: Tensor | None, part: Linear | None, after: Norm | None, norm: Norm, b: int | None, slots: Tensor, measured: Tensor | None
    ) -> Tensor:
        """
        x [R, width], float32, becomes x + y, edited as boundary `b` says (None: no edits here); rows without edits keep every bit.

        @param y the branch, which came out of `part`; normed with `after` first where that is given.
        @param measured as in Tables.apply, [R, EDITS], or None.
        @returns `norm` of it.
        """
        (rows, width), t = x.shape, self.tables
        at = 0 if b is None else b
        h = self.new(x, rows, width)
        bias = None if part is None else part.bias
        join_kernel[(rows,)](
            x, x if y is None else y, x if bias is None else bias, 0 if y is None else self.split(y), h, self.split(h),
            slots, t.count[at], t.read[at], t.write[at], t.add[at], t.cross[at], t.functions[at],
            t.gain[at], t.offset[at], t.norms[at], x if measured is None else measured, 0 if measured is None else measured.stride(0),
            x if after is None else after.weight, norm.weight, x if norm.bias is None else norm.bias, self.spec.norm_eps, width,
            BLOCK=power(width), BRANCH=y is not None, BIAS=bias is not None, AFTER=NONE if after is None else self.form, EDIT=b is not None,
            MEASURE=measured is not None, FORM=self.form, PLACES=SLOTS, MOST=EDITS, DTYPE=TYPES[self.dtype],
            num_warps=8 if width > 1024 else 4,
        )  # fmt: skip
        return h

    def turn(
        self, qkv: Tensor, part: Linear, keys: Tensor, values: Tensor, cos: Tensor | None, sin: Tensor | None, positions: Tensor, slots: Tensor,
        query_norm: Norm | None, key_norm: Norm | None,
    ) -> None:  # fmt: skip
        """
        qkv [parts R, (heads + 2 kv_heads) head_dim]: queries are turned in place, in the first R rows; keys and values go into the layer's
        cache.
        """
        spec = self.spec
        turn_kernel[(len(slots), spec.heads + 2 * spec.kv_heads)](
            qkv, self.split(qkv), qkv if part.bias is None else part.bias,
            keys, values, qkv if cos is None else cos, qkv if sin is None else sin, positions, slots,
            qkv if query_norm is None else query_norm.weight, qkv if key_norm is None else key_norm.weight,
            spec.norm_eps, spec.heads, spec.kv_heads, spec.head_dim, keys.shape[1],
            BLOCK=power(spec.head_dim // 2), BIAS=part.bias is not None, ROPE=cos is not None, HEAD_NORM=query_norm is not None,
            DTYPE=TYPES[self.dtype],
        )  # fmt: skip

    def attend(self, qkv: Tensor, keys: Tensor, values: Tensor, positions: Tensor, slots: Tensor, layer: int) -> Tensor:
        """What `turn` left, against the cache. @returns [parts R, heads head_dim]"""
        spec, rows = self.spec, len(slots)
        group, dim, window = spec.heads // spec.kv_heads, spec.head_dim, spec.windows[layer]
        peaks, sums = (torch.empty(rows, spec.heads, PARTS, device=qkv.device) for _ in range(2))
        parts = torch.empty(rows, spec.heads, PARTS, dim, device=qkv.device)
        attend_kernel[(rows, spec.kv_heads, PARTS)](
            qkv, keys, values, positions, slots, peaks, sums, parts, spec.scales[layer], spec.score_cap or 0.0, window or 0,
            spec.heads, spec.kv_heads, group, dim, keys.shape[1],
            ROWS=power(group), BLOCK=power(dim), SIZE=KEYS if dim <= 128 else KEYS // 2, SPLITS=PARTS,
            CAP=spec.score_cap is not None, WINDOW=window is not None,
            # What the cache holds has fewer bits than this keeps.
            PRECISION="ieee" if self.parts == 1 else "tf32",
        )  # fmt: skip
        out = self.new(qkv, rows, spec.heads * dim)
        merge_kernel[(rows * spec.heads,)](peaks, sums, parts, out, self.split(out), dim, BLOCK=power(dim), SPLITS=PARTS, DTYPE=TYPES[self.dtype])
        return out

    def gate(self, hidden: Tensor, part: Linear) -> Tensor:
        """The MLP's inner values, [parts R, inner]."""
        spec, rows = self.spec, hidden.shape[0] // self.parts
        out = self.new(hidden, rows, spec.inner)
        gate_kernel[(rows, triton.cdiv(spec.inner, 1024))](
            hidden, self.split(hidden), hidden if part.bias is None else part.bias, out, self.split(out), spec.inner,
            BIAS=part.bias is not None, GATED=spec.gated, SILU=spec.activation == "silu", BLOCK=1024, DTYPE=TYPES[self.dtype],
        )  # fmt: skip
        return out
