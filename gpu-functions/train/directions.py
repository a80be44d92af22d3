"""Four named directions of the residual stream, as differences of means over stories whose attributes are known.

    python directions.py --checkpoint build/model.pt --corpus build/corpus --out ../bundled/tiller-tales

Reads resid_pre of layer LAYER over freshly generated stories (a seed that training did not use), averages over positions (a manner
shows only in what is spoken, so only there), takes mean(with) - mean(without), and brings it to length one: a strength is then a
length in the residual stream.
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
BATCH = 40
SKIP = 5  # positions before the text has said much
SOURCE = f"{LAYER}-tales-directions"

# share: the suggested strength as a share of the stream's mean length. speech: read only between quotation marks.
DIRECTIONS = [
    {"label": "happy - sad", "share": 0.25, "with": {"mood": "happy", "manner": "neutral"}, "without": {"mood": "sad", "manner": "neutral"}},
    {"label": "polite - rude", "share": 0.4, "speech": True, "with": {"mood": "neutral", "manner": "polite"}, "without": {"mood": "neutral", "manner": "rude"}},
    {"label": "the sea", "share": 0.4, "with": {"topic": "sea"}, "without": {}},
    {"label": "outer space", "share": 0.4, "with": {"topic": "space"}, "without": {}},
]


@torch.no_grad()
def mean_residual(model: GPT, tokenizer: Tokenizer, generator: Generator, attributes: dict[str, str], speech: bool) -> tuple[Tensor, float]:
    """Mean of resid_pre [D] over the positions of PER_SIDE stories (or of their speech), and the mean of its length."""
    stories = [[0, *tokenizer.encode(generator.story(**attributes).text).ids][: model.config.context] for _ in range(PER_SIDE)]
    total, length, count = torch.zeros(model.config.width), 0.0, 0
    for start in range(0, PER_SIDE, BATCH):
        rows = stories[start : start + BATCH]
        # Padding is on the right: attention is causal, so it changes nothing before it.
        ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
        stream = model(ids, stop_at=LAYER)
        for row, residual in zip(rows, stream):
            read = [i for i in (spoken(tokenizer, row) if speech else range(len(row))) if i >= SKIP]
            total += residual[read].sum(0)
            length += residual[read].norm(dim=1).sum().item()
            count += len(read)
    return total / count, length / count


def spoken(tokenizer: Tokenizer, ids: list[int]) -> list[int]:
    """Positions between quotation marks."""
    inside, found = False, []
    for i, token in enumerate(ids):
        quotes = tokenizer.decode([token]).count('"')
        if inside and not quotes:
            found.append(i)
        inside ^= quotes % 2 == 1
    return found


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
        speech = direction.get("speech", False)
        present, length = mean_residual(model, tokenizer, generator, direction["with"], speech)
        absent, _ = mean_residual(model, tokenizer, generator, direction["without"], speech)
        difference = present - absent
        rows.append(difference / difference.norm())
        labels[str(i)] = {"label": direction["label"], "strength": round(direction["share"] * length)}
        print(f"{direction['label']}: mean difference {difference.norm():.2f}, mean length of the stream {length:.1f}")
    folder = args.out / "sources" / SOURCE
    folder.mkdir(parents=True, exist_ok=True)
    save_file({"W_dec": torch.stack(rows).contiguous()}, folder / "sae_weights.safetensors")
    (folder / "sae_weights.safetensors").chmod(0o644)
    config = {"architecture": "directions", "d_in": model.config.width, "d_sae": len(rows), "dtype": "float32", "hook_name": f"blocks.{LAYER}.hook_resid_pre", "model_name": "tiller-tales"}
    write_json(folder / "cfg.json", config)
    write_json(folder / "labels.json", {"labels": labels})


if __name__ == "__main__":
    main()
