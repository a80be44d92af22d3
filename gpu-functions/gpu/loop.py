"""Continuous batching over one model's slots: rows wait in order, are prefilled in parts between the others' steps, decode together and
leave at any step. The host stays behind the device: a step is started before the one before it is read.
"""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .decoder import Decoder, Taken
from .row import RowEdits
from .step import SAID, TOP, Kind, Said, Steps

# Tokens of a prompt that are computed at once; of a text whose predictions are wanted.
PART = 512
PREDICTED = 64


@dataclass(eq=False)
class Row:
    """A sequence in a slot. `known`: tokens that an earlier run generated."""

    prompt: list[int]
    edits: RowEdits
    known: list[int] = field(default_factory=list)
    slot: int = -1
    length: int = 0
    """Positions of the prompt that were computed."""
    started: int = 0
    """Tokens whose choice was started, and those of them that were read."""
    read: int = 0
    ended: bool = False
    until: int = 0
    """The edits in the slot's tables hold up to this position."""

    @property
    def position(self) -> int:
        """The position that the next step computes."""
        return len(self.prompt) + self.started - 1


@dataclass(eq=False)
class Generation:
    """A request: `base` is the place of the row that the others are compared with, or None."""

    id: str
    rows: list[Row]
    sampling: dict[str, Any]
    most: int
    eos: frozenset[int]
    base: int | None = None
    timing: dict[str, float] = field(default_factory=lambda: {"queue_ms": 0.0, "prefill_ms": 0.0, "decode_ms": 0.0})
    created: float = field(default_factory=time.perf_counter)
    kind: Kind = Kind()

    def __post_init__(self) -> None:
        measured = any(row.edits.edits for row in self.rows)
        self.kind = Kind.of(self.sampling, self.base is not None, measured)


@dataclass(eq=False)
class Reading:
    """
    A text that is read: one row; or two of the same text, the first without edits, which are compared. `targets` are ids whose log
    probabilities are wanted, the first of them after the position `start`; `top` likely tokens are listed with each. `boundaries` are those
    whose residual streams are wanted, of the first row.
    """

    id: str
    rows: list[Row]
    targets: list[int]
    start: int
    top: int
    boundaries: list[int]
    created: float = field(default_factory=time.perf_counter)

    @property
    def measured(self) -> int:
        """Edits of positions from here on are none of the receipts': no target is predicted there, and what else is wanted is read plain."""
        return self.start + len(self.targets) if len(self.rows) > 1 else len(self.rows[0].prompt)


Job = Generation | Reading
Report = Callable[..., None]


@dataclass
class Flight:
    """A step that was started and not read yet: whose tokens, which of each, and where it was computed."""

    rows: list[tuple[Generation, Row, int]]
    said: Tensor
    measured: Tensor | None
    done: "torch.cuda.Event | None"


class Loop:
    """
    @param report is told (event, fields, binary): worker.py has the events.
    @param behind steps that are started before one is read: 1 keeps a GPU busy, 0 wastes nothing on a CPU.
    """

    def __init__(self, decoder: Decoder, steps: Steps, report: Report, behind: int):
        self.decoder, self.steps, self.report, self.behind = decoder, steps, report, behind
        self.device = decoder.weights.embedding.device
        self.free = list(range(steps.spare))
        self.waiting: deque[Job] = deque()
        self.running: dict[str, Job] = {}
        self.decoding: list[tuple[Generation, Row]] = []
        self.flights: deque[Flight] = deque()

    @property
    def busy(self) -> bool:
        return bool(self.waiting or self.flights or self.decoding or any(self.unread(job) for job in self.running.values()))

    def unread(self, job: Job) -> bool:
        return any(row.length < len(row.prompt) for row in job.rows)

    def submit(self, job: Job) -> None:
        self.waiting.append(job)

    def end(self, id: str, place: int) -> None:
        """A row needs no more tokens: a stop string was found."""
        job = self.running.get(id)
        if isinstance(job, Generation):
            self.release(job, job.rows[place])

    def finish(self, id: str, tokens: list[int]) -> None:
        """All rows have ended, with so many tokens each: tells the receipts of what counts."""
        job = self.drop(id)
        if not isinstance(job, Generation):
            return
        for row, count in zip(job.rows, tokens, strict=True):
            row.edits.forget(len(row.prompt) + count - 1)
        self.report("finished", {"id": id, "tallies": tallies(job), "timing": job.timing})

    def drop(self, id: str) -> Job | None:
        """Nobody wants it any more. Its slots are free at once: what was started with them is not read."""
        self.waiting = deque(job for job in self.waiting if job.id != id)
        job = self.running.pop(id, None)
        for row in job.rows if job is not None else []:
            self.release(job, row)
        return job

    def release(self, job: Job, row: Row) -> None:
        if not row.ended:
            row.ended = True
            self.free.append(row.slot)
            self.decoding = [(each, other) for each, other in self.decoding if other is not row]

    def turn(self) -> None:
        """A part of a prompt, and a step of everything that decodes."""
        while self.waiting and len(self.waiting[0].rows) <= len(self.free):
            self.admit(self.waiting.popleft())
        job = next((job for job in self.running.values() if self.unread(job)), None)
        if job is not None:
            self.prefill(job)
        started = self.decode()
        while self.flights and (len(self.flights) > self.behind or not started):
            self.read(self.flights.popleft())

    def admit(self, job: Job) -> None:
        self.running[job.id] = job
        for row in job.rows:
            row.slot = self.free.pop()
            if isinstance(job, Generation):
                self.steps.admit(row.slot, len(row.prompt), row.known, job.most, job.sampling)
        if isinstance(job, Generation):
            job.timing["queue_ms"] = 1000 * (time.perf_counter() - job.created)

    def write_edits(self, row: Row, position: int, limit: int) -> None:
        """Puts the edits of a position into the row's tables; they hold up to `limit` or until others act."""
        self.decoder.tables.set(row.slot, row.edits.at(position))
        row.until = row.edits.changes_at(position, limit)

    def prefill(self, job: Job) -> None:
        """One part of a prompt: rows of the same prompt go together."""
        first = next(row for row in job.rows if row.length < len(row.prompt))
        rows = [row for row in job.rows if row.prompt is first.prompt and row.length == first.length]
        start, whole = first.length, len(first.prompt)
        predicted = isinstance(job, Reading) and bool(job.targets)
        size = PREDICTED if predicted else PART
        end = min(whole, (start // size + 1) * size)
        for row in rows:
            self.write_edits(row, start, end)
        end = min(row.until for row in rows)
        ids = torch.tensor([first.prompt[start:end]], device=self.device).expand(len(rows), -1)
        positions = torch.arange(start, end, device=self.device).expand(len(rows), -1)
        slots = torch.tensor([row.slot for row in rows], device=self.device)
        edited = frozenset(b for row in rows for b in row.edits.at(start))
        taken = Taken(frozenset(job.boundaries) if isinstance(job, Reading) else frozenset(), measure=bool(edited))
        began = time.perf_counter()
        heads = min(end - start, max(0, end - job.start)) if isinstance(job, Reading) else int(end == whole)
        logits = self.decoder.forward(ids, positions, slots, end, heads, edited, taken)
        for i, row in enumerate(rows):
            row.length = end
            if taken.measured is not None:
                counted = max(0, job.measured - start) if isinstance(job, Reading) else None
                row.edits.record(start, taken.measured[i, :counted].cpu().numpy())
        if isinstance(job, Reading):
            self.tell_part(job, start, end, logits, taken)
            return
        if end == whole:
            self.steps.first[slots] = logits[:, -1]
        job.timing["prefill_ms"] += 1000 * (time.perf_counter() - began)
        if not self.unread(job):
            self.begin(job)

    def begin(self, job: Generation) -> None:
        """All prompts are computed: the first tokens, and from then on the rows decode together."""
        self.decoding += [(job, row) for row in job.rows]
        for row in job.rows:
            row.until = 0
        bases = [i if job.base is None else job.base for i in range(len(job.rows))]
        self.start(self.steps.first_tokens([row.slot for row in job.rows], bases, job.kind), [(job, row) for row in job.rows])

    def decode(self) -> bool:
        """A step of every row that wants another token. @returns whether there was one."""
        rows = [(job, row) for job, row in self.decoding if row.started < job.most]
        if not rows:
            return False
        edited: set[int] = set()
        for job, row in rows:
            if row.position >= row.until:
                self.write_edits(row, row.position, len(row.prompt) + job.most)
            edited |= self.decoder.tables.used[row.slot]
        places = {id(row): i for i, (_, row) in enumerate(rows)}
        bases = [i if job.base is None else places.get(id(job.rows[job.base]), i) for i, (job, _) in enumerate(rows)]
        kind = Kind()
        for job, _ in rows:
            kind |= job.kind
        limit = max(row.position for _, row in rows) + 1
        self.start(self.steps.next_tokens([row.slot for _, row in rows], bases, kind, limit, frozenset(edited)), rows)
        return True

    def start(self, said: Said, rows: list[tuple[Generation, Row]]) -> None:
        count = len(rows)
        told, measured, done = said.said[:count], said.measured, None
        measured = None if measured is None else measured[:count]
        if self.device.type == "cuda":
            told, measured = (None if part is None else host_copy(part) for part in (told, measured))
            done = torch.cuda.Event()
            done.record()
        self.flights.append(Flight([(job, row, row.started) for job, row in rows], told, measured, done))
        for _, row in rows:
            row.started += 1

    def read(self, flight: Flight) -> None:
        """Tells the tokens of a step that is done."""
        if flight.done is not None:
            flight.done.synchronize()
        said = flight.said.numpy()
        measured = None if flight.measured is None else flight.measured.numpy()
        tokens: dict[str, list[Any]] = {}
        alive = {row for _, row, _ in flight.rows if not row.ended}
        for at, (job, row, index) in enumerate(flight.rows):
            if row.ended:
                continue
            chosen, logprob, kl, finite = said[at, :SAID]
            if not finite:
                self.drop(job.id)
                tokens.pop(job.id, None)
                self.report("failed", {"id": job.id, "reason": "not_finite"})
                continue
            if index > 0 and measured is not None:
                row.edits.record(len(row.prompt) + index - 1, measured[at : at + 1])
            row.read += 1
            job.timing["decode_ms"] = 1000 * (time.perf_counter() - job.created) - job.timing["queue_ms"] - job.timing["prefill_ms"]
            place, base = job.rows.index(row), None if job.base is None else job.rows[job.base]
            compared = base in alive and base is not row
            count = job.sampling["logprobs"]
            values, ids = said[at, SAID : SAID + count], said[at, SAID + TOP : SAID + TOP + count]
            top = [[int(id), float(value)] for value, id in sorted(zip(values, ids, strict=True), key=lambda one: (-one[0], one[1])) if id >= 0]
            tokens.setdefault(job.id, []).append([place, index, int(chosen), float(logprob), top, float(kl) if compared else None])
            if int(chosen) in job.eos or row.read >= job.most:
                self.release(job, row)
        for id, list_ in tokens.items():
            self.report("tokens", {"id": id, "tokens": list_})

    def tell_part(self, job: Reading, start: int, end: int, logits: Tensor, taken: Taken) -> None:
        """What was wanted of the positions [start, end) of a text. @param logits [rows, T, vocab] of the last T of them."""
        fields: dict[str, Any] = {"id": job.id, "start": start, "end": end, "scored": []}
        first = end - logits.shape[1]
        wanted = job.targets[first - job.start : end - job.start]
        if wanted:
            scored = score(logits[:, : len(wanted)], torch.tensor(wanted, device=self.device), job.top)
            if scored is None:
                self.drop(job.id)
                self.report("failed", {"id": job.id, "reason": "not_finite"})
                return
            fields["scored"] = scored
        streams = [taken.streams[b][0].float().cpu() for b in job.boundaries]
        binary = torch.stack(streams).numpy().tobytes() if streams else b""
        self.report("part", fields, binary)
        if end == len(job.rows[0].prompt):
            self.drop(job.id)
            self.report("finished", {"id": job.id, "tallies": tallies(job), "timing": {}})


def score(logits: Tensor, targets: Tensor, top: int) -> list[list[Any]] | None:
    """
    Of every target, by the last row: its log probability, the likeliest tokens in its place, and where there is another row its log
    probability by that one and KL(last || other), in nats and float64. None where a logit is not finite.

    @param logits [rows, T, vocab]; targets [T].
    """
    scores = torch.log_softmax(logits.double(), -1)
    if not torch.isfinite(scores.amax()):
        return None
    likely = scores.gather(-1, targets.expand(len(logits), -1)[..., None])[..., 0].tolist()
    values, ids = (part.tolist() for part in scores[-1].topk(min(max(top, 1), scores.shape[-1]), -1))
    scored: list[list[Any]] = []
    for t, logprob in enumerate(likely[-1]):
        ranked = sorted(zip(values[t], ids[t], strict=True), key=lambda one: (-one[0], one[1]))[:top]
        scored.append([logprob, [[id, value] for value, id in ranked]])
    if len(logits) > 1:
        plain, edited = scores
        terms = torch.where(edited == -torch.inf, 0.0, edited.exp() * (edited - plain))
        kl = terms.sum(-1).clamp(min=0).tolist()
        for entry, logprob, divergence in zip(scored, likely[0], kl, strict=True):
            entry.append([logprob, divergence])
    return scored


def tallies(job: Job) -> list[list[list[float]]]:
    """Of every edit of every row: positions, positions changed, sum of ||delta|| / ||h||."""
    return [np.stack([row.edits.positions, row.edits.changed, row.edits.relative], 1).tolist() for row in job.rows]


def host_copy(part: Tensor) -> Tensor:
    """In pinned memory, there when the stream has come so far."""
    return torch.empty(part.shape, dtype=part.dtype, pin_memory=True).copy_(part, non_blocking=True)
