"""All latents of a sparse autoencoder at once (cpu/sae.ts has the terms; cpu/sae-encoder.ts is the other engine's)."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Encoder:
    """
    weight [width, latents]; `vectors` by name, [latents] each, but input_bias [width]; `settings`: kind, k, centre, scale, per_token.
    """

    weight: Tensor
    vectors: dict[str, Tensor]
    settings: dict[str, Any]

    @torch.inference_mode()
    def encode(self, residuals: Tensor) -> Tensor:
        """Activations [T, latents] of the streams [T, width], float32; times the norms of the decoder rows where those are folded."""
        v, settings = self.vectors, self.settings
        pre = self.transform(residuals) @ self.weight
        norms = v.get("norms", 1.0)
        match settings["kind"]:
            case "standard":
                return torch.relu(pre + v["bias"]) * norms
            case "jumprelu":
                z = pre + v["bias"]
                return torch.where(z > v["threshold"], torch.relu(z), 0.0) * norms
            case "gated":
                scaled = torch.relu(pre * v["log_scale"].exp() + v["magnitude_bias"])
                return torch.where(pre + v["gate_bias"] > 0, scaled, 0.0) * norms
            case "topk":
                z = (pre + v["bias"]) * norms
                least = z.topk(settings["k"], -1).values[:, -1:]
                return torch.where(z >= least, torch.relu(z), 0.0)
        raise ValueError(f"there is no autoencoder of the kind {settings['kind']}")

    def transform(self, h: Tensor) -> Tensor:
        settings = self.settings
        x = h - h.mean(-1, keepdim=True) if settings["centre"] else h
        x = x * settings["scale"]
        if settings["per_token"] == "layer_norm":
            x = x - x.mean(-1, keepdim=True)
            x = x / (x.std(-1, keepdim=True) + 1e-5)
        elif settings["per_token"] == "constant_norm_rescale":
            x = x * x.shape[-1] ** 0.5 / x.norm(dim=-1, keepdim=True)
        bias = self.vectors.get("input_bias")
        return x if bias is None else x - bias
