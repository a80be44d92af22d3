"""The arithmetic of edits, as shared/steering.ts defines it: what an edit reads, writes and how much, and how a point's edits fold into
one read and one write; and the tables through which every slot's edits act inside the forward pass.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

INF = math.inf
# Edits of one point that read the residual stream: as many as the protocol allows (shared/protocol.ts, LIMITS.editsPerPoint).
SLOTS = 8


class EditError(ValueError):
    """An edit that cannot be made: the message says what is wrong, and what is allowed."""


@dataclass(frozen=True)
class Latent:
    """One SAE latent as a function of the residual h alone: with s = h . read, a(h) = s - zero if s > edge else 0."""

    read: Tensor
    zero: float
    edge: float


@dataclass(frozen=True)
class Edit:
    """`direction` is v [width]; `strength` is c = strength x strength_multiplier; `share` of the change is made."""

    method: str
    direction: Tensor
    strength: float = 0.0
    min: float | None = None
    max: float | None = None
    latent: Latent | None = None
    share: float = 1.0


@dataclass(frozen=True)
class Function:
    """g = scale s + offset + (clamp(s, low, high) - s if s > edge else 0)."""

    scale: float = 0.0
    offset: float = 0.0
    low: float = -INF
    high: float = INF
    edge: float = -INF

    @property
    def affine(self) -> bool:
        return self.low == -INF and self.high == INF

    def of(self, s: float) -> float:
        return self.scale * s + self.offset + (min(max(s, self.low), self.high) - s if s > self.edge else 0.0)


# What a table's place holds while no edit uses it: g = s, whatever s is.
NEUTRAL = Function(scale=1.0)


def function_of(edit: Edit) -> Function:
    match edit.method:
        case "SIMPLE_ADDITIVE":
            return Function(offset=edit.strength)
        case "ORTHOGONAL_DECOMP":
            return Function(scale=edit.strength - 1)
        case "ABLATE":
            return Function(scale=-1.0)
        case "PROJECTION_CAP":
            return Function(high=edit.strength)
        case "PROJECTION_CLAMP":
            return Function(low=-INF if edit.min is None else edit.min, high=INF if edit.max is None else edit.max)
        case "LATENT_CLAMP" if edit.latent is not None:
            # c - a(h): where the latent is active, clamp(s, -inf, zero) - s = -(s - zero).
            return Function(offset=edit.strength, high=edit.latent.zero, edge=edit.latent.edge)
    raise EditError(f"There is no method {edit.method} for this edit.")


@dataclass(frozen=True)
class ReadWrite:
    """Read direction u, write direction w [width, float64] and scalar function of one edit: h + f(h . u) w."""

    read: Tensor
    write: Tensor
    f: Function


def read_write(edit: Edit) -> ReadWrite:
    direction = edit.direction.double()
    length = direction.norm().item()
    if not (0 < length < INF):
        raise EditError("A direction must have finite values and must not be zero.")
    unit = direction / length
    # The additive edit keeps the length of v, a latent reads along its own column; the others are defined on the unit direction.
    write = direction if edit.method == "SIMPLE_ADDITIVE" else unit
    f = function_of(edit)
    read = edit.latent.read.double() if edit.method == "LATENT_CLAMP" and edit.latent is not None else unit
    return ReadWrite(read, edit.share * write, f)


@dataclass(frozen=True)
class Program:
    """
    One point's edits: s = h U, then s' = s + g(s') M in order, then h + add + g(s') W. U: [width, n], W: [n, width], M: [n, n].

    `parts` are the edits themselves; slotted[k] is the edit whose read is s[k].
    """

    read: Tensor
    write: Tensor
    add: Tensor
    cross: Tensor
    functions: tuple[Function, ...]
    parts: tuple[ReadWrite, ...]
    slotted: tuple[int, ...]

    def deltas(self, reads: list[float]) -> list[float]:
        """||delta|| of every edit at one position, from the reads s = h U that were measured: the same recursion, in float64."""
        gains: list[float] = []
        for i, part in enumerate(self.parts):
            s = 0.0
            if i in self.slotted:
                s = reads[self.slotted.index(i)] + sum(g * self.interaction[j][i] for j, g in enumerate(gains))
            gains.append(part.f.of(s))
        return [abs(g) * norm for g, norm in zip(gains, self.norms, strict=True)]

    @cached_property
    def interaction(self) -> list[list[float]]:
        """w_j . u_i."""
        return (torch.stack([p.write for p in self.parts]) @ torch.stack([p.read for p in self.parts]).T).tolist()

    @cached_property
    def norms(self) -> list[float]:
        return [part.write.norm().item() for part in self.parts]


def compile_point(edits: list[Edit], width: int) -> Program:
    """
    Folds the edits of one point, in order. Affine ones are solved on the host: g = s, nothing to be found in order.

    @raises EditError for a zero or non-finite direction, or more edits that read than there are places.
    """
    parts = [read_write(edit) for edit in edits]
    affine = all(part.f.affine for part in parts)
    slotted = [i for i, part in enumerate(parts) if not affine or part.f.scale != 0]
    if len(slotted) > SLOTS:
        raise EditError(f"{len(slotted)} edits read the residual at one point, the limit is {SLOTS}: merge directions or use fewer.")
    empty = torch.zeros(0, width, dtype=torch.float64)
    read = torch.stack([parts[i].read for i in slotted]) if slotted else empty
    if not affine:
        write = torch.stack([part.write for part in parts])
        cross = torch.triu(write @ read.T, 1)
        return Program(read.T, write, torch.zeros(width), cross, tuple(part.f for part in parts), tuple(parts), tuple(slotted))
    # gain[i] is the row of d g_i / d s over the places, bias[i] the part of g_i that does not depend on h.
    gain = torch.zeros(len(parts), len(slotted), dtype=torch.float64)
    bias = torch.zeros(len(parts), dtype=torch.float64)
    for i, part in enumerate(parts):
        if i in slotted:
            gain[i, slotted.index(i)] = part.f.scale
        bias[i] = part.f.offset
        for j in range(i):
            coupling = part.f.scale * (parts[j].write @ part.read)
            gain[i] += coupling * gain[j]
            bias[i] += coupling * bias[j]
    writes = torch.stack([part.write for part in parts])
    n = len(slotted)
    return Program(read.T, gain.T @ writes, bias @ writes, torch.zeros(n, n), (NEUTRAL,) * n, tuple(parts), tuple(slotted))


class Tables:
    """
    The edits of every slot at every boundary, as data: any number of configurations runs through the same operations.

    read [boundaries, slots, width, SLOTS], write [.., SLOTS, width], add [.., width], cross [.., SLOTS, SLOTS], functions [.., 5, SLOTS];
    all float32.
    """

    def __init__(self, slots: int, boundaries: int, width: int, device: torch.device):
        def zeros(*shape: int) -> Tensor:
            return torch.zeros(boundaries, slots, *shape, device=device)

        self.read, self.write, self.add = zeros(width, SLOTS), zeros(SLOTS, width), zeros(width)
        self.cross, self.functions = zeros(SLOTS, SLOTS), zeros(5, SLOTS)
        self.width = width
        for slot in range(slots):
            self.set(slot, {})

    def set(self, slot: int, programs: dict[int, Program]) -> None:
        """The edits that the slot's next calls apply, by boundary; replaces what was there."""
        for part in (self.read, self.write, self.add, self.cross):
            part[:, slot] = 0
        self.functions[:, slot] = self.functions.new_tensor(rows([NEUTRAL] * SLOTS))
        for b, program in programs.items():
            n = len(program.functions)
            self.read[b, slot, :, :n] = program.read.to(self.read)
            self.write[b, slot, :n] = program.write.to(self.write)
            self.add[b, slot] = program.add.to(self.add)
            self.cross[b, slot, :n, :n] = program.cross.to(self.cross)
            if n > 0:
                self.functions[b, slot, :, :n] = self.functions.new_tensor(rows(program.functions))

    def apply(self, b: int, x: Tensor, slots: Tensor, measured: list[Tensor] | None = None) -> Tensor:
        """
        x: [B, T, width] of these slots [B]; the result has its type.

        @param measured gets the reads, ||delta||^2 and ||h||^2: [B, T, SLOTS + 2], float32. Receipts are made of it.
        """
        wide = x.float()
        s = torch.bmm(wide, self.read[b, slots])
        scale, offset, low, high, edge = self.functions[b, slots].unsqueeze(2).unbind(1)
        cross = self.cross[b, slots]

        def gains(s: Tensor) -> Tensor:
            return scale * s + offset + torch.where(s > edge, torch.clamp(s, low, high) - s, 0.0)

        # Exact after SLOTS - 1 rounds, because M is strictly upper triangular.
        current = s
        for _ in range(SLOTS - 1):
            current = s + torch.bmm(gains(current), cross)
        delta = self.add[b, slots].unsqueeze(1) + torch.bmm(gains(current), self.write[b, slots])
        if measured is not None:
            squares = [part.square().sum(-1, keepdim=True) for part in (delta, wide)]
            measured.append(torch.cat([s, *squares], -1))
        # Rows without edits keep every bit: what is added to them is zero.
        return (wide + delta).to(x.dtype)


def rows(functions: list[Function] | tuple[Function, ...]) -> list[list[float]]:
    return [[getattr(f, part) for f in functions] for part in ("scale", "offset", "low", "high", "edge")]
