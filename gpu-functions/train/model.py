"""GPT-2, small: pre-LayerNorm blocks, learned positions, tanh-GELU, tied embeddings; exported in Hugging Face layout."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Config:
    vocab: int = 2048
    context: int = 256
    width: int = 256
    layers: int = 6
    heads: int = 8
    dropout: float = 0.05


class Block(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        d = config.width
        self.config = config
        self.ln_1, self.ln_2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.c_attn, self.attn_proj = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.c_fc, self.mlp_proj = nn.Linear(d, 4 * d), nn.Linear(4 * d, d)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, d = x.shape
        heads = self.config.heads
        q, k, v = self.c_attn(self.ln_1(x)).view(batch, length, 3, heads, d // heads).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(batch, length, d)
        drop = self.config.dropout
        x = x + F.dropout(self.attn_proj(attended), drop, self.training)
        hidden = F.gelu(self.c_fc(self.ln_2(x)), approximate="tanh")
        return x + F.dropout(self.mlp_proj(hidden), drop, self.training)


class GPT(nn.Module):
    """Steering and reading happen at boundaries: boundary b is resid_pre of block b, boundary `layers` is resid_post of the last."""

    def __init__(self, config: Config = Config()) -> None:
        super().__init__()
        self.config = config
        self.wte, self.wpe = nn.Embedding(config.vocab, config.width), nn.Embedding(config.context, config.width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.ln_f = nn.LayerNorm(config.width)
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                # Residual projections start smaller, as in GPT-2, so that the stream's size does not grow with depth.
                scale = (2 * config.layers) ** -0.5 if name.endswith("proj.weight") else 1.0
                nn.init.normal_(parameter, 0.0, 0.02 * scale)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(self, ids: Tensor, edit: tuple[int, Tensor] | None = None, stop_at: int | None = None) -> Tensor:
        """ids [B, T] -> logits [B, T, V].

        edit: (boundary, delta [D]) is added to the stream there at every position. stop_at: return boundary [B, T, D] instead.
        """
        x = self.wte(ids) + self.wpe.weight[: ids.shape[1]]
        for boundary in range(self.config.layers + 1):
            if edit is not None and edit[0] == boundary:
                x = x + edit[1]
            if stop_at == boundary:
                return x
            if boundary < self.config.layers:
                x = self.blocks[boundary](x)
        return F.linear(self.ln_f(x), self.wte.weight)

    def hugging_face_tensors(self) -> dict[str, Tensor]:
        """Names and layouts of `GPT2LMHeadModel`: Conv1D weights are [in, out]."""
        tensors = {"wte.weight": self.wte.weight, "wpe.weight": self.wpe.weight, "ln_f.weight": self.ln_f.weight, "ln_f.bias": self.ln_f.bias}
        for i, block in enumerate(self.blocks):
            parts = {"ln_1": block.ln_1, "ln_2": block.ln_2, "attn.c_attn": block.c_attn, "attn.c_proj": block.attn_proj, "mlp.c_fc": block.c_fc, "mlp.c_proj": block.mlp_proj}
            for name, module in parts.items():
                weight = module.weight.T if isinstance(module, nn.Linear) else module.weight
                tensors[f"h.{i}.{name}.weight"], tensors[f"h.{i}.{name}.bias"] = weight, module.bias
        return {f"transformer.{name}": tensor.detach().contiguous() for name, tensor in tensors.items()}
