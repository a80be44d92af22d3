"""Four named directions of the residual stream, as differences of means over stories whose attributes are known.

    python directions.py --checkpoint build/model.pt --corpus build/corpus --out ../bundled/tiller-tales

Reads resid_pre of layer LAYER over freshly generated stories (a seed that training did not use), averages over positions, takes
mean(with) - mean(without), and brings it to length one: a strength is then a length in the residual stream.
"""

import argparse
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor

from export import load_checkpoint, write_json
from generator import Generator
from model import GPT

LAYER = 3
PER_SIDE = 400
SKIP = 5  # positions before the text has said much
SOURCE = f"{LAYER}-tales-directions"

DIRECTIONS = [
    {"label": "happy - sad", "with": {"mood": "happy", "manner": "neutral"}, "without": {"mood": "sad", "manner": "neutral"}},
    {"label": "polite - rude", "with": {"mood": "neutral", "manner": "polite"}, "without": {"mood": "neutral", "manner": "rude"}},
    {"label": "the sea", "with": {"topic": "sea"}, "without": {}},
    {"label": "outer space", "with": {"topic": "space"}, "without": {}},
]


@torch.no_grad()
def mean_residual(model: GPT, tokenizer: Tokenizer, generator: Generator, attributes: dict[str, str]) -> Tensor:
    """Mean of resid_pre [D] over the positions of PER_SIDE stories."""
    total, count = torch.zeros(model.config.width), 0
    for _ in range(PER_SIDE):
        ids = [0, *tokenizer.encode(generator.story(**attributes).text).ids][: model.config.context]
        stream = model(torch.tensor([ids]), stop_at=LAYER)[0, SKIP:]
        total += stream.sum(0)
        count += len(stream)
    return total / count


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(2)
    model = load_checkpoint(args.checkpoint)
    tokenizer = Tokenizer.from_file(str(args.corpus / "tokenizer.json"))
    rows, labels = [], {}
    for i, direction in enumerate(DIRECTIONS):
        generator = Generator(seed=1000 + i)
        difference = mean_residual(model, tokenizer, generator, direction["with"]) - mean_residual(model, tokenizer, generator, direction["without"])
        rows.append(difference / difference.norm())
        labels[str(i)] = {"label": direction["label"], "strength": 12}
        print(f"{direction['label']}: mean difference has length {difference.norm():.2f}")
    folder = args.out / "sources" / SOURCE
    folder.mkdir(parents=True, exist_ok=True)
    save_file({"W_dec": torch.stack(rows).contiguous()}, folder / "sae_weights.safetensors")
    (folder / "sae_weights.safetensors").chmod(0o644)
    config = {"architecture": "directions", "d_in": model.config.width, "d_sae": len(rows), "dtype": "float32", "hook_name": f"blocks.{LAYER}.hook_resid_pre", "model_name": "tiller-tales"}
    write_json(folder / "cfg.json", config)
    write_json(folder / "labels.json", {"labels": labels})


if __name__ == "__main__":
    main()
