"""One row's edits while it runs: which of them act at which position, their folded programs, and the receipts that prove it."""

from bisect import bisect_right
from collections import deque
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from .edits import Edit, Program, compile_point

# Compiled combinations of edits that are kept: prompt, ranges and the current step of a schedule.
KEPT = 16
# Generated positions whose part of the receipts can still be taken back: more than are computed before the caller sees a stop string.
REMEMBERED = 4096


@dataclass(frozen=True)
class PlacedEdit:
    """
    An edit at a boundary. `positions`: all, prompt, generated, prompt_except_last, or half-open ranges of absolute positions;
    `schedule`: constant, or (decay | ramp, tokens).
    """

    edit: Edit
    boundary: int
    positions: str | list[tuple[int, int]] = "all"
    schedule: str | tuple[str, int] = "constant"

    def share(self, position: int, prompt: int) -> float:
        """The share of its change at a position: 0 where it does not act (shared/protocol.ts, shareAt)."""
        match self.positions:
            case "all":
                acts = True
            case "prompt":
                acts = position < prompt
            case "generated":
                acts = position >= prompt
            case "prompt_except_last":
                acts = position < prompt - 1
            case ranges:
                acts = any(start <= position < end for start, end in ranges)
        if not acts:
            return 0.0
        if position < prompt or isinstance(self.schedule, str):
            return 1.0
        kind, tokens = self.schedule
        step = position - prompt
        return min(1.0, (step + 1) / tokens) if kind == "ramp" else max(0.0, 1 - step / tokens)


class RowEdits:
    """
    The edits of one row over its whole life. Positions are absolute; 0 is the first token of the prompt.

    @param untouched positions of the prompt that no edit touches: special tokens, where the request leaves them alone.
    @raises EditError when the edits do not fit together.
    """

    def __init__(self, edits: list[PlacedEdit], prompt: int, width: int, untouched: frozenset[int] = frozenset()):
        self.edits, self.prompt, self.width, self.untouched = edits, prompt, width, untouched
        # Of every edit: positions it acted on, positions it changed, and the sum of ||delta|| / ||h|| over them.
        self.positions, self.changed, self.relative = (np.zeros(len(edits)) for _ in range(3))
        self.history: deque[tuple[int, np.ndarray, np.ndarray]] = deque(maxlen=REMEMBERED)
        self.programs: dict[tuple[tuple[int, float], ...], dict[int, Program]] = {}
        # A schedule first differs from the prompt at its first or second token; from then on every token is looked at.
        edges = {prompt - 1, prompt, prompt + 1, *untouched, *(t + 1 for t in untouched)}
        for placed in edits:
            if not isinstance(placed.positions, str):
                edges.update(edge for span in placed.positions for edge in span)
        self.edges = sorted(edges)
        self.scheduled = max((placed.schedule[1] for placed in edits if not isinstance(placed.schedule, str)), default=-1)
        # Every combination that can occur is a subset of all: what compiles together compiles apart.
        self.compile(tuple((i, 1.0) for i in range(len(edits))))

    def active(self, position: int) -> tuple[tuple[int, float], ...]:
        """(index, share) of the edits that act at a position."""
        if position in self.untouched:
            return ()
        shares = ((i, edit.share(position, self.prompt)) for i, edit in enumerate(self.edits))
        return tuple((i, share) for i, share in shares if share != 0)

    def changes_at(self, start: int, limit: int) -> int:
        """The first position after `start`, at most `limit`, at which other edits act than at `start`."""
        now = self.active(start)
        if self.prompt <= start + 1 <= self.prompt + self.scheduled and self.active(start + 1) != now:
            return min(start + 1, limit)
        for edge in self.edges[bisect_right(self.edges, start) :]:
            if edge >= limit or self.active(edge) != now:
                return min(edge, limit)
        return limit

    def at(self, position: int) -> dict[int, Program]:
        """The programs that act at a position, by boundary. The same object comes back while nothing changes."""
        return self.compile(self.active(position))

    def compile(self, active: tuple[tuple[int, float], ...]) -> dict[int, Program]:
        known = self.programs.get(active)
        if known is not None:
            return known
        by_boundary: dict[int, list[Edit]] = {}
        for i, share in active:
            placed = self.edits[i]
            by_boundary.setdefault(placed.boundary, []).append(replace(placed.edit, share=share))
        compiled = {b: compile_point(edits, self.width) for b, edits in by_boundary.items()}
        # A schedule's programs are of no use once its token is past.
        if len(self.programs) >= KEPT:
            self.programs.pop(next(iter(self.programs)))
        self.programs[active] = compiled
        return compiled

    def record(self, start: int, measured: np.ndarray) -> None:
        """
        Adds what a call measured (edits.Tables.apply) to the receipts.

        @param measured [T, boundaries, EDITS] of positions from `start` on, at which the same edits act.
        """
        active = self.active(start)
        if not active:
            return
        here = np.array([i for i, _ in active])
        boundaries = [self.edits[i].boundary for i in here]
        columns = [boundaries[:k].count(b) for k, b in enumerate(boundaries)]
        values = measured[:, boundaries, columns].astype(np.float64)
        self.add(here, values, 1)
        if start >= self.prompt:
            self.history.extend((start + t, here, values[t : t + 1]) for t in range(len(values)))

    def add(self, edits: np.ndarray, values: np.ndarray, sign: int) -> None:
        self.positions[edits] += sign * len(values)
        self.changed[edits] += sign * (values > 0).sum(0)
        self.relative[edits] += sign * values.sum(0)

    def forget(self, position: int) -> None:
        """Takes back what was recorded of generated positions from `position` on: they were computed before the row's end was known."""
        while self.history and self.history[-1][0] >= position:
            _, edits, values = self.history.pop()
            self.add(edits, values, -1)
