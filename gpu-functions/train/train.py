"""Trains the bundled model.

    python train.py --corpus build/corpus --out build/model.pt

Two phases. The first learns from everything: its learning rate is constant after a short warm-up and falls linearly over the last
part. The second leaves the classics out (their long old-fashioned sentences are what a model of this size garbles) and falls linearly
from a lower rate. What is shipped is the mean of the weights at the two ends: the second phase writes cleaner sentences but learns the
few real stories by heart, and the mean keeps most of the one without the other (held out as good as after the first phase;
averaging along one run: Izmailov et al. 2018). Seeded by step: stopping and starting again with --resume gives the same batches as never having stopped. Muon
(Jordan et al. 2024) for the blocks' matrices, AdamW for the rest. Writes OUT.checkpoint every 100 steps, OUT.first after phase one.
"""

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from model import GPT, Config

BATCH = 16
SHARES = {"tales": 0.45, "synthetic": 0.38, "classics": 0.17}
SECOND_SHARES = {"tales": 0.57, "synthetic": 0.43}
SECOND_RATE = 0.5
WARM_UP = 60
DECAY = 0.6
MUON_RATE, ADAM_RATE = 0.02, 3e-3


def orthogonalise(gradient: Tensor) -> Tensor:
    """Newton-Schulz iteration towards the nearest orthogonal matrix; coefficients from the Muon paper."""
    x = gradient.bfloat16()
    x = x / (x.norm() + 1e-7)
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    for _ in range(5):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return (x.T if tall else x).float()


class Muon(torch.optim.Optimizer):
    def __init__(self, parameters, lr: float) -> None:
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                momentum = self.state[p].setdefault("momentum", torch.zeros_like(p))
                momentum.lerp_(p.grad, 0.05)
                update = p.grad.lerp(momentum, 0.95)
                # The packed q, k, v matrix is three matrices.
                parts = 3 if p.shape[0] == 3 * p.shape[1] else 1
                for piece, weight in zip(update.chunk(parts), p.chunk(parts)):
                    u = orthogonalise(piece)
                    weight.mul_(1 - group["lr"] * 0.05).add_(u, alpha=-group["lr"] * max(1, u.shape[0] / u.shape[1]) ** 0.5)


class Batches:
    """Windows of context + 1 tokens; half of them start where a document starts, as every generation does."""

    def __init__(self, corpus: Path, context: int) -> None:
        self.context = context
        self.parts = {name: torch.from_numpy(np.load(corpus / f"{name}.npy").astype(np.int64)) for name in SHARES}
        self.starts = {name: (ids[: -context - 1] == 0).nonzero().flatten() for name, ids in self.parts.items()}

    def batch(self, step: int, shares: dict[str, float]) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(1_000_003 * (step + 1))
        rows = []
        for name in [list(shares)[i] for i in torch.multinomial(torch.tensor(list(shares.values())), BATCH, True, generator=generator)]:
            ids, starts = self.parts[name], self.starts[name]
            aligned = torch.rand((), generator=generator) < 0.5
            limit = len(starts) if aligned else len(ids) - self.context - 1
            i = int(torch.randint(limit, (), generator=generator))
            at = int(starts[i]) if aligned else i
            rows.append(ids[at : at + self.context + 1])
        window = torch.stack(rows)
        return window[:, :-1], window[:, 1:]


@torch.no_grad()
def held_out_loss(model: GPT, corpus: Path) -> tuple[float, float]:
    """Mean loss in nats per token and per byte of the held-out stories, in windows of the context without overlap."""
    ids = torch.from_numpy(np.load(corpus / "held_out.npy").astype(np.int64))
    size = json.loads((corpus / "report.json").read_text())["held_out"]["bytes"]
    context = model.config.context
    total, count = 0.0, 0
    model.eval()
    for start in range(0, len(ids) - 1, context):
        window = ids[start : start + context + 1]
        logits = model(window[None, :-1])[0]
        total += F.cross_entropy(logits.float(), window[1:], reduction="sum").item()
        count += len(window) - 1
    model.train()
    return total / count, total / size


def rate(step: int, first: int, second: int) -> float:
    """The learning rate's factor at a step of the two phases of `first` and `second` steps."""
    if step < first:
        return min(1.0, (step + 1) / WARM_UP, max(0.01, (first - step) / (DECAY * first)))
    return SECOND_RATE * min(1.0, (step - first + 1) / WARM_UP, (first + second - step) / second)


def write(state: dict, file: Path) -> None:
    """Whole or not at all: a run that is stopped leaves the file before."""
    torch.save(state, file.with_suffix(".tmp"))
    file.with_suffix(".tmp").replace(file)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--first", type=int, default=2500, help="steps of the first phase")
    parser.add_argument("--second", type=int, default=700, help="steps of the second phase")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--resume", action="store_true")
    args = parser.parse_args()
    checkpoint, first_end = (args.out.with_suffix(f"{args.out.suffix}.{name}") for name in ("checkpoint", "first"))
    steps = args.first + args.second
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    model = GPT(Config())
    matrices = [p for name, p in model.named_parameters() if p.dim() == 2 and name.startswith("blocks.")]
    chosen = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in chosen]
    optimisers = [Muon(matrices, MUON_RATE), torch.optim.AdamW(others, ADAM_RATE, betas=(0.9, 0.95), weight_decay=0.0)]
    bases = (MUON_RATE, ADAM_RATE)
    first = 0
    if args.resume:
        saved = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(saved["model"])
        for optimiser, state in zip(optimisers, saved["optimisers"]):
            optimiser.load_state_dict(state)
        first = saved["step"]
    print(f"{sum(p.numel() for p in model.parameters())} parameters, steps {first} to {steps} of {BATCH * model.config.context} tokens", flush=True)

    def save(step: int) -> None:
        write({"model": model.state_dict(), "optimisers": [o.state_dict() for o in optimisers], "step": step}, checkpoint)
        if step == args.first:
            write({"model": model.state_dict()}, first_end)

    batches = Batches(args.corpus, model.config.context)
    started, running = time.time(), math.nan
    for step in range(first, steps):
        # Dropout too is drawn from the step's own seed.
        torch.manual_seed(step)
        for optimiser, base in zip(optimisers, bases):
            optimiser.param_groups[0]["lr"] = base * rate(step, args.first, args.second)
        x, y = batches.batch(step, SHARES if step < args.first else SECOND_SHARES)
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(x)
        loss = F.cross_entropy(logits.float().flatten(0, 1), y.flatten())
        model.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimiser in optimisers:
            optimiser.step()
        running = loss.item() if math.isnan(running) else 0.95 * running + 0.05 * loss.item()
        if (step + 1) % 20 == 0:
            speed = (step + 1 - first) * BATCH * model.config.context / (time.time() - started)
            print(f"step {step + 1} loss {running:.3f} {speed:.0f} tokens/s {time.time() - started:.0f} s", flush=True)
        if (step + 1) % 100 == 0 or step + 1 in (args.first, steps):
            save(step + 1)
    early = torch.load(first_end, weights_only=True)["model"]
    model.load_state_dict({name: (early[name] + late) / 2 for name, late in model.state_dict().items()})
    write({"model": model.state_dict()}, args.out)
    token, byte = held_out_loss(model, args.corpus)
    print(f"held out: {token:.4f} nats/token, {byte:.4f} nats/byte", flush=True)


if __name__ == "__main__":
    main()
