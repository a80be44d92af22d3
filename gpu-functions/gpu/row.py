"""One row's edits while it runs: which of them act at which position, their folded programs, and the receipts that prove it."""

from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from .edits import SLOTS, Edit, Program, compile_point

# Compiled combinations of edits that are kept: prompt, ranges and the current step of a schedule.
KEPT = 16


class NotApplied(ValueError):
    """`steering_not_applied`: edits that should have changed something changed nothing."""


@dataclass(frozen=True)
class PlacedEdit:
    """
    An edit at a boundary. `positions`: all, prompt, generated, prompt_except_last, or half-open ranges of absolute positions;
    `schedule`: constant, or (decay | ramp, tokens); `index` is its place in the request, `point` as the receipt shows it.
    """

    edit: Edit
    boundary: int
    point: str
    index: int
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

    @property
    def neutral(self) -> bool:
        """Whether it cannot change anything whatever h is: zero strength, or a scale of one."""
        method, strength = self.edit.method, self.edit.strength
        return (method == "SIMPLE_ADDITIVE" and strength == 0) or (method == "ORTHOGONAL_DECOMP" and strength == 1)


@dataclass
class Tally:
    positions: int = 0
    changed: int = 0
    relative: float = 0.0


class RowEdits:
    """
    The edits of one row over its whole life. Positions are absolute; 0 is the first token of the prompt.

    @param untouched positions of the prompt that no edit touches: special tokens, where the request leaves them alone.
    @raises EditError when the edits do not fit together.
    """

    def __init__(self, edits: list[PlacedEdit], prompt: int, width: int, untouched: frozenset[int] = frozenset()):
        self.edits, self.prompt, self.width, self.untouched = edits, prompt, width, untouched
        self.tallies = [Tally() for _ in edits]
        self.programs: dict[tuple[tuple[int, float], ...], dict[int, Program]] = {}
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
        return next((position for position in range(start + 1, limit) if self.active(position) != now), limit)

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

    def record(self, position: int, measured: Tensor) -> None:
        """Adds what a call measured at a position, [boundaries, SLOTS + 2] on the host, to the receipts."""
        active = self.active(position)
        for boundary, program in self.at(position).items():
            *reads, delta_squared, residual_squared = measured[boundary].tolist()
            here = [i for i, _ in active if self.edits[i].boundary == boundary]
            for i, delta in zip(here, program.deltas(reads[:SLOTS]), strict=True):
                tally = self.tallies[i]
                tally.positions += 1
                # What the host computes must have been written by the decoder too: a receipt never claims more than was measured.
                if delta_squared > 0:
                    tally.changed += delta > 0
                    tally.relative += delta / residual_squared**0.5

    def receipts(self) -> list[dict[str, Any]]:
        """As the protocol has them (shared/protocol.ts, Receipt)."""
        return [
            {
                "edit": placed.index, "point": placed.point, "method": placed.edit.method, "strength": placed.edit.strength,
                "positions": tally.positions, "positions_changed": tally.changed,
                "mean_relative_delta": tally.relative / tally.positions if tally.positions else 0,
            }
            for placed, tally in zip(self.edits, self.tallies, strict=True)
        ]  # fmt: skip

    def require_effect(self, name: str) -> None:
        """@raises NotApplied when edits that should have changed something changed nothing."""
        meant = [i for i, placed in enumerate(self.edits) if not placed.neutral]
        if not meant or any(self.tallies[i].changed for i in meant):
            return
        if not any(self.tallies[i].positions for i in meant):
            why = "met no position: their positions lie outside the prompt and the generated text."
        elif all(self.edits[i].edit.method == "LATENT_CLAMP" for i in meant):
            why = (
                "changed nothing: the latents already had the activations they are clamped to, as one that is never active has 0. "
                "Clamp to another value."
            )
        else:
            why = (
                "changed nothing: no position's projection went past the bound, or the strength is too small to change a float32. "
                "Use a tighter bound or a larger strength."
            )
        raise NotApplied(f"The edits of row '{name}' {why}")
