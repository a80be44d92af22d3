"""One decode step through the kernels: the same arithmetic as Decoder.forward for one token of each row, in about ten launches a layer."""

from collections.abc import Callable

import torch
from torch import Tensor

from .decoder import Decoder, Taken, joined, times
from .edits import EDITS, Edit, Latent, compile_point


class FastStep:
    def __init__(self, decoder: Decoder):
        # Triton is where there is a GPU.
        from .kernels import Kernels

        self.decoder = decoder
        self.kernels = Kernels(decoder.spec, decoder.tables, decoder.weights.embedding.dtype)

    @torch.inference_mode()
    def __call__(self, ids: Tensor, positions: Tensor, slots: Tensor, measure: bool) -> tuple[Tensor, Tensor | None]:
        """
        ids, positions and slots: [B].

        @returns logits [B, vocab] in float32; what the edits changed, [B, boundaries, EDITS], where it is asked for.
        """
        decoder, k = self.decoder, self.kernels
        spec, w = decoder.spec, decoder.weights
        measured = torch.empty(len(ids), spec.layers + 1, EDITS, device=ids.device) if measure else None

        def measured_at(b: int) -> Tensor | None:
            return None if measured is None else measured[:, b]

        x = decoder.embed(ids, positions)
        h = k.join(x, None, None, None, w.layers[0].before_attention, 0, slots, measured_at(0))
        for i, layer in enumerate(w.layers):
            keys, values = decoder.keys[i], decoder.values[i]
            qkv = times(h, layer.qkv.weight)
            k.turn(qkv, layer.qkv, keys, values, decoder.cos, decoder.sin, positions, slots, layer.query_norm, layer.key_norm)
            attended = times(k.attend(qkv, keys, values, positions, slots, i), layer.out.weight)
            h = k.join(x, attended, layer.out, layer.after_attention, layer.before_mlp, None, slots, None)
            added = times(k.gate(times(h, layer.up.weight), layer.up), layer.down.weight)
            following = w.layers[i + 1].before_attention if i + 1 < spec.layers else w.last
            h = k.join(x, added, layer.down, layer.after_mlp, following, i + 1, slots, measured_at(i + 1))
        logits = times(h, w.head)
        return decoder.unembed(logits if k.parts == 1 else joined(logits)), measured


def new_fast_step(decoder: Decoder, say: Callable[[str], None]) -> "FastStep | None":
    """
    The kernels, where they can be had and say the same as the decoder on this machine and model: wrong numbers would steer wrongly in
    silence. Uses the last slot of the cache.
    """
    try:
        fast = FastStep(decoder)
        worst = disagreement(decoder, fast)
    except Exception as error:
        say(f"the fused kernels are not used: {type(error).__name__}: {error}")
        return None
    allowed = ALLOWED[decoder.weights.embedding.dtype]
    if worst > allowed:
        say(f"the fused kernels are not used: they differ by {worst:.2g} of the largest logit, {allowed:.2g} is rounding")
        return None
    return fast


# Of the largest logit: what rounding in another order explains, and keys and values that fall to the other side of it.
ALLOWED = {torch.float32: 1e-3, torch.bfloat16: 1e-2, torch.float16: 2e-3}


def disagreement(decoder: Decoder, fast: FastStep) -> float:
    """The largest difference of a step's logits from the decoder's, as a share of the largest logit, plain and with edits of all forms."""
    spec, device = decoder.spec, decoder.weights.embedding.device
    slot = decoder.keys.shape[1] - 1
    slots = torch.tensor([slot], device=device)
    length = min(100, decoder.context - 1)
    ids = (torch.arange(length + 1, device=device) * 7919 % spec.vocab)[None]
    v = torch.linspace(-1, 1, spec.width)
    edits = [
        Edit("SIMPLE_ADDITIVE", v, 1.0), Edit("ABLATE", v.cos()), Edit("PROJECTION_CAP", v.sin(), -0.5),
        Edit("LATENT_CLAMP", v.exp(), 1.0, latent=Latent(v, 0.1, 0.1)),
    ]  # fmt: skip
    worst = 0.0
    for programs in ({}, {b: compile_point(edits, spec.width) for b in (0, spec.layers // 2, spec.layers)}):
        decoder.tables.set(slot, programs)
        positions = torch.arange(length + 1, device=device)[None]
        decoder.forward(ids[:, :length], positions[:, :length], slots, length, 1)
        taken = Taken(measure=True)
        wanted = decoder.forward(ids[:, length:], positions[:, length:], slots, length + 1, taken=taken)[0, 0]
        found, measured = fast(ids[0, length:], positions[0, length:], slots, True)
        worst = max(worst, ((found[0] - wanted).abs().max() / wanted.abs().max()).item())
        assert measured is not None and taken.measured is not None
        worst = max(worst, ((measured[0] - taken.measured[0, 0]).abs().max() / taken.measured.max().clamp(min=1)).item())
    decoder.tables.set(slot, {})
    return worst if worst == worst else float("inf")
