"""From logits to tokens, for a batch of rows at once: penalties, temperature, top_k, top_p, one draw (cpu/sampler.ts, cpu/random.ts).

Nothing here waits for the device, so that a step of the decoder can be captured whole.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

MASK = 0xFFFFFFFF
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10


def multiply(a: int, b: Tensor) -> tuple[Tensor, Tensor]:
    """Upper and lower 32 bits of the product of two uint32, in int64 without overflow."""
    low = b * (a & 0xFFFF)
    high = b * (a >> 16)
    middle = high + (low >> 16)
    return middle >> 16, ((middle & 0xFFFF) << 16) | (low & 0xFFFF)


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """
    Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011). Words are uint32 in int64 tensors.
    """
    (c0, c1, c2, c3), (k0, k1) = counter, key
    for _ in range(ROUNDS):
        (high0, low0), (high1, low1) = multiply(MULTIPLIERS[0], c0), multiply(MULTIPLIERS[1], c2)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + WEYL[0]) & MASK, (k1 + WEYL[1]) & MASK
    return c0, c1, c2, c3


def uniform(seeds: Tensor, positions: Tensor) -> Tensor:
    """
    The draw in [0, 1) for each row's generated token at `position` (0 is the first), float32: the upper 24 bits of Philox's first word
    over 2^24. Key: the seed as a 64-bit two's complement integer; counter: (position low, high, 0, 0). Both [B], int64.
    """
    zero = torch.zeros_like(positions)
    first = philox((positions & MASK, (positions >> 32) & MASK, zero, zero), (seeds & MASK, (seeds >> 32) & MASK))[0]
    return (first >> 8).float() / 2**24


@dataclass(frozen=True)
class Settings:
    """One value a row, [B]. temperature 0 takes the largest logit; top_k 0 and top_p 1 keep all; seeds are int64."""

    temperature: Tensor
    top_k: Tensor
    top_p: Tensor
    frequency_penalty: Tensor
    presence_penalty: Tensor


def sample(logprobs: Tensor, counts: Tensor, settings: Settings, u: Tensor, drawn: bool = True, truncated: bool = True) -> Tensor:
    """
    Picks the next token of every row.

    Penalties are subtracted from the logits of generated tokens (frequency times the count, presence once), as OpenAI documents them.
    The kept tokens' masses are walked in ascending id until they pass u times their sum: an order that needs no sort, so that engines
    agree on it.

    @param logprobs [B, V] float64: log softmax of the logits; counts [B, V], how often each id was generated; u [B], in [0, 1).
    @param drawn whether any row has a temperature above 0; truncated whether any of those has top_k or top_p.
    @returns ids [B].
    """
    scores = logprobs - settings.frequency_penalty[:, None] * counts - settings.presence_penalty[:, None] * (counts > 0)
    # The lowest id among equals, which argmax does not promise.
    peak = scores.amax(-1, keepdim=True)
    greedy = (scores == peak).to(torch.uint8).argmax(-1)
    if not drawn:
        return greedy
    # Relative to the peak before dividing: a tiny temperature then gives -inf for the others, never NaN for the best.
    warm = torch.where(settings.temperature == 0, 1.0, settings.temperature.double())[:, None]
    masses = torch.exp((scores - peak) / warm)
    kept = truncate(masses, settings.top_k, settings.top_p) if truncated else masses
    sums = kept.cumsum(-1)
    target = u.double()[:, None] * sums[:, -1:]
    # The first id that passes; rounding can leave the sum a hair below the target, then the last one that is kept.
    passes = (sums > target) & (kept > 0)
    last = kept.shape[-1] - 1 - (kept > 0).flip(-1).to(torch.uint8).argmax(-1)
    chosen = torch.where(passes.any(-1), passes.to(torch.uint8).argmax(-1), last)
    return torch.where(settings.temperature == 0, greedy, chosen)


def truncate(masses: Tensor, top_k: Tensor, top_p: Tensor) -> Tensor:
    """Zeroes the masses outside top_k and top_p, in this order; at least one stays. Equals rank by the lower id."""
    ranked, order = masses.sort(dim=-1, descending=True, stable=True)
    rank = torch.arange(masses.shape[-1], device=masses.device)
    within = (top_k[:, None] == 0) | (rank < top_k[:, None])
    ranked = torch.where(within, ranked, 0.0)
    before = ranked.cumsum(-1) - ranked
    wanted = top_p.double()[:, None] * ranked.sum(-1, keepdim=True)
    keep = within & ((top_p[:, None] >= 1) | (before < wanted) | (rank == 0))
    return torch.zeros_like(masses).scatter(-1, order, torch.where(keep, ranked, 0.0))
