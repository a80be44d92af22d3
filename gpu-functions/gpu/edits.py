"""The arithmetic of edits, as shared/steering.ts defines it: what an edit reads, writes and how much, and how a point's edits fold into
one read and one write; and the tables through which every slot's edits act inside the forward pass.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

INF = math.inf
# Edits of one point that read the residual stream: as many as the protocol allows (shared/protocol.ts, LIMITS.editsPerPoint).
SLOTS = 8
# Edits of one point altogether: as many as a row may have (LIMITS.edits).
EDITS = 32


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
    One point's edits: s = h U, then s' = s + g(s') M in order, then h + add + g(s') W. U: [n, width], W: [n, width], M: [n, n].

    Of the edits themselves, in order: what each adds is (offset + g(s') G) times a write of the length `norms`. G: [n, edits].
    """

    read: Tensor
    write: Tensor
    add: Tensor
    cross: Tensor
    functions: tuple[Function, ...]
    offset: Tensor
    gain: Tensor
    norms: Tensor


def compile_point(edits: list[Edit], width: int) -> Program:
    """
    Folds the edits of one point, in order. Affine ones are solved on the host: g = s, nothing to be found in order.

    @raises EditError for a zero or non-finite direction, or more edits that read than there are places.
    """
    parts = [read_write(edit) for edit in edits]
    affine = all(part.f.affine for part in parts)
    slotted = [i for i, part in enumerate(parts) if not affine or part.f.scale != 0]
    n = len(slotted)
    if n > SLOTS:
        raise EditError(f"{n} edits read the residual at one point, the limit is {SLOTS}: merge directions or use fewer.")
    empty = torch.zeros(0, width, dtype=torch.float64)
    read = torch.stack([parts[i].read for i in slotted]) if slotted else empty
    write = torch.stack([part.write for part in parts])
    norms = write.norm(dim=1)
    if not affine:
        cross = torch.triu(write @ read.T, 1)
        functions = tuple(part.f for part in parts)
        return Program(read, write, torch.zeros(width), cross, functions, torch.zeros(n), torch.eye(n), norms)
    # gain[i] is the row of d g_i / d s over the places, bias[i] the part of g_i that does not depend on h.
    gain = torch.zeros(len(parts), n, dtype=torch.float64)
    bias = torch.zeros(len(parts), dtype=torch.float64)
    for i, part in enumerate(parts):
        if i in slotted:
            gain[i, slotted.index(i)] = part.f.scale
        bias[i] = part.f.offset
        for j in range(i):
            coupling = part.f.scale * (parts[j].write @ part.read)
            gain[i] += coupling * gain[j]
            bias[i] += coupling * bias[j]
    return Program(read, gain.T @ write, bias @ write, torch.zeros(n, n), (NEUTRAL,) * n, bias, gain.T, norms)


class Tables:
    """
    The edits of every slot at every boundary, as data: any number of configurations runs through the same operations.

    read and write [boundaries, slots, SLOTS, width], add [.., width], cross [.., SLOTS, SLOTS], functions [.., 5, SLOTS]; of the single
    edits gain [.., SLOTS, EDITS], offset and norms [.., EDITS]; all float32. count [boundaries, slots], int32: 0 where there are no edits,
    otherwise one more than the places that are used.
    """

    def __init__(self, slots: int, boundaries: int, width: int, device: torch.device):
        def zeros(*shape: int) -> Tensor:
            return torch.zeros(boundaries, slots, *shape, device=device)

        self.read, self.write, self.add = zeros(SLOTS, width), zeros(SLOTS, width), zeros(width)
        self.cross, self.functions = zeros(SLOTS, SLOTS), zeros(5, SLOTS)
        self.gain, self.offset, self.norms = zeros(SLOTS, EDITS), zeros(EDITS), zeros(EDITS)
        self.count = torch.zeros(boundaries, slots, dtype=torch.int32, device=device)
        self.neutral = self.functions.new_tensor(rows([NEUTRAL] * SLOTS))
        self.functions[:] = self.neutral
        self.used: list[frozenset[int]] = [frozenset()] * slots

    def set(self, slot: int, programs: dict[int, Program]) -> None:
        """The edits that the slot's next calls apply, by boundary; replaces what was there."""
        for b in self.used[slot] | programs.keys():
            for part in (self.read, self.write, self.add, self.cross, self.gain, self.offset, self.norms):
                part[b, slot] = 0
            self.functions[b, slot] = self.neutral
            self.count[b, slot] = 0
        for b, program in programs.items():
            n, edits = program.gain.shape
            self.count[b, slot] = n + 1
            self.add[b, slot] = program.add.to(self.add)
            self.offset[b, slot, :edits] = program.offset.to(self.offset)
            self.norms[b, slot, :edits] = program.norms.to(self.norms)
            if n == 0:
                continue
            self.read[b, slot, :n] = program.read.to(self.read)
            self.write[b, slot, :n] = program.write.to(self.write)
            self.cross[b, slot, :n, :n] = program.cross.to(self.cross)
            self.gain[b, slot, :n, :edits] = program.gain.to(self.gain)
            self.functions[b, slot, :, :n] = self.functions.new_tensor(rows(program.functions))
        self.used[slot] = frozenset(programs)

    def apply(self, b: int, x: Tensor, slots: Tensor, measured: Tensor | None = None) -> Tensor:
        """
        x: [B, T, width] of these slots [B], float32.

        @param measured gets ||delta|| / ||h|| of every edit, [B, T, EDITS], float32; 0 where nothing was written. Receipts are made of it.
        """
        s = torch.bmm(x, self.read[b, slots].mT)
        scale, offset, low, high, edge = self.functions[b, slots].unsqueeze(2).unbind(1)
        cross = self.cross[b, slots]

        def gains(s: Tensor) -> Tensor:
            return scale * s + offset + torch.where(s > edge, torch.clamp(s, low, high) - s, 0.0)

        # Exact after SLOTS - 1 rounds, because M is strictly upper triangular.
        current = s
        for _ in range(SLOTS - 1):
            current = s + torch.bmm(gains(current), cross)
        g = gains(current)
        delta = self.add[b, slots].unsqueeze(1) + torch.bmm(g, self.write[b, slots])
        if measured is not None:
            each = (self.offset[b, slots].unsqueeze(1) + torch.bmm(g, self.gain[b, slots])).abs() * self.norms[b, slots].unsqueeze(1)
            # What should have been written must have been: a receipt never claims more than was measured.
            written = delta.square().sum(-1, keepdim=True) > 0
            measured.copy_(torch.where(written, each / x.norm(dim=-1, keepdim=True), 0.0))
        # Rows without edits keep every bit: what is added to them is zero.
        return x + delta


def rows(functions: list[Function] | tuple[Function, ...]) -> list[list[float]]:
    return [[getattr(f, part) for f in functions] for part in ("scale", "offset", "low", "high", "edge")]
