"""Trains one sparse autoencoder on resid_pre of layer LAYER and writes it in SAELens layout.

    python sae.py --checkpoint build/model.pt --corpus build/corpus --out ../bundled/tiller-tales

BatchTopK (Bussmann et al. 2024) while training, JumpReLU with one measured threshold afterwards, so that reading a token needs no
batch. The input's scale is folded in: the shipped SAE reads raw activations. BOS positions are left out.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from directions import LAYER
from export import load_checkpoint, write_json
from model import GPT

LATENTS = 1024
ACTIVE = 16
BATCH = 2048
STEPS = 3000
RATE = 1.5e-3
DEAD_AFTER = 300
SOURCE = f"{LAYER}-tales-res"


def windows(corpus: Path, context: int, per_part: dict[str, int]) -> Tensor:
    """Token windows [N, context], each preceded by BOS, taken evenly from the parts of the corpus."""
    rows = []
    for name, count in per_part.items():
        ids = torch.from_numpy(np.load(corpus / f"{name}.npy").astype(np.int64))
        starts = torch.linspace(0, len(ids) - context, count).long()
        rows += [torch.cat([torch.zeros(1, dtype=torch.long), ids[s : s + context - 1]]) for s in starts.tolist()]
    return torch.stack(rows)


@torch.no_grad()
def activations(model: GPT, ids: Tensor) -> Tensor:
    """resid_pre [N, context, D] of LAYER."""
    return torch.cat([model(ids[i : i + 32], stop_at=LAYER) for i in range(0, len(ids), 32)])


def train(x: Tensor) -> dict[str, Tensor]:
    """x [n, D], centred and scaled to unit mean square -> encoder, decoder, biases and threshold in that scale."""
    generator = torch.Generator().manual_seed(0)
    width = x.shape[1]
    decoder = F.normalize(torch.randn(LATENTS, width, generator=generator), dim=1).requires_grad_()
    encoder = decoder.detach().T.clone().requires_grad_()
    b_enc, b_dec = torch.zeros(LATENTS, requires_grad=True), torch.zeros(width, requires_grad=True)
    optimiser = torch.optim.Adam([encoder, decoder, b_enc, b_dec], lr=RATE, betas=(0.9, 0.99))
    silent = torch.zeros(LATENTS)
    threshold = torch.tensor(0.0)
    for step in range(STEPS):
        optimiser.param_groups[0]["lr"] = RATE * min(1.0, (step + 1) / 100, (STEPS - step) / (0.3 * STEPS))
        batch = x[torch.randint(len(x), (BATCH,), generator=generator)]
        acts = F.relu((batch - b_dec) @ encoder + b_enc)
        # Every eighth value is enough to find the batch's cut, and an order statistic of all of them costs more than the rest.
        sample = acts.detach().flatten()[::8]
        cut = sample.kthvalue(sample.numel() - ACTIVE * BATCH // 8).values
        sparse = acts * (acts > cut)
        error = batch - (sparse @ decoder + b_dec)
        loss = error.pow(2).sum(1).mean()
        silent += 1
        silent[(sparse > 0).any(0)] = 0
        dead = silent > DEAD_AFTER
        if dead.any():
            # Latents that never win are trained on what the others leave over (AuxK, Gao et al. 2024).
            spare = acts * dead
            values, places = spare.topk(min(32, int(dead.sum())), 1)
            rebuilt = torch.zeros_like(acts).scatter(1, places, values) @ decoder
            loss = loss + (error.detach() - rebuilt).pow(2).sum(1).mean() / 32
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        with torch.no_grad():
            decoder /= decoder.norm(dim=1, keepdim=True)
            kept = sparse[sparse > 0]
            threshold = kept.min() if step == 0 else 0.99 * threshold + 0.01 * kept.min()
        if (step + 1) % 1000 == 0:
            print(f"step {step + 1} loss {loss.item():.4f} dead {int(dead.sum())}", flush=True)
    return {"W_enc": encoder.detach(), "W_dec": decoder.detach(), "b_enc": b_enc.detach(), "b_dec": b_dec.detach(), "threshold": threshold.expand(LATENTS).clone()}


def fold(sae: dict[str, Tensor], mean: Tensor, scale: Tensor) -> dict[str, Tensor]:
    """From the scale of x = (h - mean) / scale to raw h, with apply_b_dec_to_input: latents keep the units of h."""
    return {
        "W_enc": sae["W_enc"],
        "W_dec": sae["W_dec"],
        "b_enc": sae["b_enc"] * scale,
        "b_dec": sae["b_dec"] * scale + mean,
        "threshold": sae["threshold"] * scale,
    }


def encode(sae: dict[str, Tensor], h: Tensor) -> Tensor:
    """JumpReLU latents [.., LATENTS] of raw activations h [.., D]."""
    pre = (h - sae["b_dec"]) @ sae["W_enc"] + sae["b_enc"]
    return pre * (pre > sae["threshold"])


@torch.no_grad()
def report(model: GPT, sae: dict[str, Tensor], ids: Tensor) -> dict[str, float]:
    """On held-out text: variance unexplained, active latents per token, and the loss with the stream replaced by the reconstruction."""
    h = activations(model, ids)
    flat = h[:, 1:].reshape(-1, h.shape[-1])
    latents = encode(sae, flat)
    unexplained = (flat - latents @ sae["W_dec"] - sae["b_dec"]).pow(2).sum() / (flat - flat.mean(0)).pow(2).sum()

    def loss(stream: Tensor) -> float:
        x = stream
        for block in model.blocks[LAYER:]:
            x = block(x)
        logits = F.linear(model.ln_f(x), model.wte.weight)
        return F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).item()

    rebuilt = h.clone()
    rebuilt[:, 1:] = encode(sae, h[:, 1:]) @ sae["W_dec"] + sae["b_dec"]
    flattened = h.clone()
    flattened[:, 1:] = flat.mean(0)
    return {
        "variance_unexplained": round(unexplained.item(), 4),
        "active_per_token": round((latents > 0).float().sum(1).mean().item(), 2),
        "dead_latents": int((latents.sum(0) == 0).sum()),
        "loss": round(loss(h), 4),
        "loss_spliced": round(loss(rebuilt), 4),
        "loss_mean_ablated": round(loss(flattened), 4),
        "mean_residual_norm": round(flat.norm(dim=1).mean().item(), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--windows", type=int, default=1800)
    args = parser.parse_args()
    torch.set_num_threads(2)
    model = load_checkpoint(args.checkpoint)
    n = args.windows
    ids = windows(args.corpus, model.config.context, {"tales": n // 3, "synthetic": n // 3, "classics": n - 2 * (n // 3)})
    h = activations(model, ids)[:, 1:].reshape(-1, model.config.width)
    mean = h.mean(0)
    scale = (h - mean).pow(2).sum(1).mean().sqrt()
    sae = fold(train((h - mean) / scale), mean, scale)
    sae = {name: tensor.half().float() for name, tensor in sae.items()}
    numbers = report(model, sae, windows(args.corpus, model.config.context, {"held_out": 60}))
    print(json.dumps(numbers, indent=1))
    folder = args.out / "sources" / SOURCE
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.half().contiguous() for name, tensor in sae.items()}, folder / "sae_weights.safetensors")
    (folder / "sae_weights.safetensors").chmod(0o644)
    write_json(
        folder / "cfg.json",
        {
            "architecture": "jumprelu", "d_in": model.config.width, "d_sae": LATENTS, "dtype": "float16", "apply_b_dec_to_input": True,
            "normalize_activations": "none", "reshape_activations": "none",
            "metadata": {"model_name": "tiller-tales", "hook_name": f"blocks.{LAYER}.hook_resid_pre", "context_size": model.config.context, "prepend_bos": True},
        },
    )  # fmt: skip
    write_json(args.out / "sources" / SOURCE / "report.json", numbers)


if __name__ == "__main__":
    main()
