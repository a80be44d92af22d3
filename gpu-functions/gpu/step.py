"""One step of many rows on the device: the forward pass, the next token of each, and what is told of it, with no word from the host.

What a row needs lies in tables by slot (its last token, its length, its settings); a step is given slots and nothing else. On a GPU it is
one CUDA graph for each size of batch, captured when it is first needed.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .decoder import Decoder, Taken
from .fast import FastStep
from .sampling import Settings, sample, uniform

# Likely tokens that are listed: as many as a request may ask for (shared/protocol.ts, LIMITS.topLogprobs).
TOP = 10
# What a step says of a row besides its likely tokens: id, log probability, KL to its baseline, whether all logits are finite.
SAID = 4
BUCKETS = (1, 2, 4, 8, 16, 32, 64)
SETTINGS = ("temperature", "top_k", "top_p", "frequency_penalty", "presence_penalty")


class Kind(NamedTuple):
    """What any row of a step needs: what nobody needs is not computed."""

    drawn: bool = False
    truncated: bool = False
    ranked: bool = False
    compared: bool = False
    measured: bool = False

    @classmethod
    def of(cls, sampling: dict[str, Any], compared: bool, measured: bool) -> "Kind":
        drawn = sampling["temperature"] > 0
        truncated = drawn and (sampling["top_k"] > 0 or sampling["top_p"] < 1)
        return cls(drawn, truncated, sampling["logprobs"] > 0, compared, measured)

    def __or__(self, other: "Kind") -> "Kind":  # type: ignore[override]
        return Kind(*(a or b for a, b in zip(self, other, strict=True)))


@dataclass
class Said:
    """What a step leaves: said [B, SAID + 2 TOP]; measured [B, boundaries, EDITS] where it was asked for."""

    said: Tensor
    measured: Tensor | None


class Steps:
    """
    @param slots rows that can run at once. One more is kept for the empty places of a bucket.
    @param graphs whether steps are captured; @param fast the kernels, where they are used.
    """

    def __init__(self, decoder: Decoder, slots: int, graphs: bool = False, fast: FastStep | None = None):
        self.decoder, self.spare, self.graphs, self.fast = decoder, slots, graphs, fast
        like, vocab = decoder.weights.embedding, decoder.spec.vocab
        size = slots + 1

        def new(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.zeros(size, *shape, dtype=dtype, device=like.device)

        self.last, self.length, self.index = (new(dtype=torch.int64) for _ in range(3))
        self.counts = new(vocab)
        self.settings = new(len(SETTINGS))
        # Draws and tokens that an earlier run generated (-1: none), by index of the generated token.
        self.draws = new(decoder.context)
        self.known = new(decoder.context, dtype=torch.int32)
        # Logits after a prompt, until all rows of the request have theirs.
        self.first = new(vocab)
        # One pool for all graphs: what a step says is copied out before another runs.
        self.pool = torch.cuda.graph_pool_handle() if graphs else None
        self.captured: dict[tuple[int, Kind, int], tuple[torch.cuda.CUDAGraph, Tensor, Tensor, Said]] = {}

    def admit(self, slot: int, prompt: int, known: list[int], most: int, sampling: dict[str, Any]) -> None:
        """Makes a slot ready for a row. @param most tokens it will generate."""
        device = self.last.device
        self.length[slot], self.index[slot] = prompt, 0
        self.counts[slot] = 0
        self.settings[slot] = torch.tensor([float(sampling[name]) for name in SETTINGS]).to(device)
        if sampling["temperature"] > 0:
            positions = torch.arange(most)
            self.draws[slot, :most] = uniform(torch.full_like(positions, sampling["seed"]), positions).to(device)
        self.known[slot] = -1
        if known:
            self.known[slot, : len(known)] = torch.tensor(known, dtype=torch.int32).to(device)

    def choose(self, slots: Tensor, bases: Tensor, logits: Tensor, kind: Kind) -> Tensor:
        """
        The next token of every row: kept in the tables, and what is told of it is returned.

        @param slots [B]; bases [B], the place in the batch of the row that each is compared with; logits [B, vocab].
        """
        scores = torch.log_softmax(logits.double(), -1)
        index = self.index[slots]
        settings = Settings(*self.settings[slots].unbind(1))
        sampled = sample(scores, self.counts[slots], settings, self.draws[slots, index], kind.drawn, kind.truncated)
        known = self.known[slots, index].long()
        chosen = torch.where(known >= 0, known, sampled)
        vocab = self.counts.shape[1]
        self.counts.view(-1).scatter_add_(0, slots * vocab + chosen, torch.ones_like(chosen, dtype=torch.float32))
        self.last.index_copy_(0, slots, chosen)
        self.index.index_copy_(0, slots, index + 1)
        nothing = torch.zeros_like(scores[:, 0])
        likely = scores.gather(1, chosen[:, None])[:, 0]
        kl = nothing
        if kind.compared:
            terms = torch.where(scores == -torch.inf, 0.0, scores.exp() * (scores - scores[bases]))
            kl = terms.sum(-1).clamp(min=0)
        finite = torch.isfinite(scores.amax(-1))
        said = [part[:, None].double() for part in (chosen, likely, kl, finite)]
        if kind.ranked:
            best = scores.topk(min(TOP, scores.shape[1]), -1)
            pad = (0, TOP - best.values.shape[1])
            said += [torch.nn.functional.pad(part.double(), pad, value=-1) for part in best]
        else:
            said.append(nothing[:, None].expand(-1, 2 * TOP))
        return torch.cat(said, -1)

    def first_tokens(self, slots: list[int], bases: list[int], kind: Kind) -> Said:
        """The tokens after the prompts, from the logits that are kept."""
        at = torch.tensor(slots, device=self.last.device)
        return Said(self.choose(at, torch.tensor(bases, device=at.device), self.first[at], kind), None)

    def next_tokens(self, slots: list[int], bases: list[int], kind: Kind, limit: int, edited: frozenset[int]) -> Said:
        """
        One more token of every row.

        @param limit no row is as long after the step; @param edited boundaries at which any row has edits.
        """
        if not self.graphs:
            at, compared = (torch.tensor(part, device=self.last.device) for part in (slots, bases))
            return self.step(at, compared, kind, limit, edited)
        bucket = next(size for size in BUCKETS if size >= len(slots))
        # Kernels read as much of the cache as each row has; otherwise it is read as far as a power of two, so that a few graphs do.
        limit = self.decoder.context if self.fast is not None else min(self.decoder.context, max(256, 1 << (limit - 1).bit_length()))
        key = (bucket, kind, limit)
        if key not in self.captured:
            self.captured[key] = self.capture(*key)
        graph, at, compared, said = self.captured[key]
        empty = bucket - len(slots)
        at.copy_(torch.tensor(slots + [self.spare] * empty).pin_memory(), non_blocking=True)
        compared.copy_(torch.tensor(bases + list(range(len(slots), bucket))).pin_memory(), non_blocking=True)
        # Empty places share a row that is always at the same position.
        self.length[self.spare].zero_()
        self.index[self.spare].zero_()
        graph.replay()
        return said

    @torch.inference_mode()
    def step(self, slots: Tensor, bases: Tensor, kind: Kind, limit: int, edited: frozenset[int] | None) -> Said:
        taken = Taken(measure=kind.measured)
        positions = self.length[slots]
        if self.fast is not None:
            logits, measured = self.fast(self.last[slots], positions, slots, kind.measured)
        else:
            logits = self.decoder.forward(self.last[slots][:, None], positions[:, None], slots, limit, None, edited, taken)[:, -1]
            measured = None if taken.measured is None else taken.measured[:, 0]
        self.length.index_copy_(0, slots, positions + 1)
        return Said(self.choose(slots, bases, logits, kind), measured)

    def capture(self, bucket: int, kind: Kind, limit: int) -> tuple[torch.cuda.CUDAGraph, Tensor, Tensor, Said]:
        """Captures a step on the spare slot; the tables of running rows are not touched."""
        device = self.last.device
        slots = torch.full((bucket,), self.spare, device=device)
        bases = torch.arange(bucket, device=device)
        # What is lazily made (libraries' handles, workspaces, compiled kernels) must be there before the capture.
        aside = torch.cuda.Stream(device)
        aside.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(aside):
            for _ in range(2):
                self.step(slots, bases, kind, limit, None)
        torch.cuda.current_stream(device).wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool):
            said = self.step(slots, bases, kind, limit, None)
        return graph, slots, bases, said
