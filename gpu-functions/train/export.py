"""Writes a checkpoint as a model directory in Hugging Face layout, weights in float16.

    python export.py --checkpoint build/model.pt --corpus build/corpus --out ../bundled/tiller-tales

Checks that transformers computes the same logits from it and that the directory stays under 12 MB.
"""

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import GPT2LMHeadModel

from corpus import END
from model import GPT

LIMIT = 12_000_000
# A conversation as the model's stories have them: a child and her mother. The story writer goes on with the mother's words.
CHAT_TEMPLATE = (Path(__file__).parent / "chat.jinja").read_text()


def load_checkpoint(path: Path) -> GPT:
    """The model with its weights rounded to float16, as they are shipped: everything after this is measured on those."""
    model = GPT().eval()
    model.load_state_dict({name: t.half().float() for name, t in torch.load(path, weights_only=True)["model"].items()})
    return model


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    model = load_checkpoint(args.checkpoint)
    config = model.config
    args.out.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.half() for name, tensor in model.hugging_face_tensors().items()}
    save_file(tensors, args.out / "model.safetensors", metadata={"format": "pt"})
    (args.out / "model.safetensors").chmod(0o644)
    write_json(
        args.out / "config.json",
        {
            "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "activation_function": "gelu_new", "vocab_size": config.vocab,
            "n_positions": config.context, "n_embd": config.width, "n_layer": config.layers, "n_head": config.heads,
            "layer_norm_epsilon": 1e-5, "bos_token_id": 0, "eos_token_id": 0, "tie_word_embeddings": True, "torch_dtype": "float16",
            "attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0,
        },
    )  # fmt: skip
    write_json(args.out / "generation_config.json", {"bos_token_id": 0, "eos_token_id": 0, "do_sample": True, "temperature": 0.7})
    tokens = {
        "tokenizer_class": "GPT2Tokenizer", "bos_token": END, "eos_token": END, "add_bos_token": True, "model_max_length": config.context,
        "chat_template": CHAT_TEMPLATE,
    }  # fmt: skip
    write_json(args.out / "tokenizer_config.json", tokens)
    Tokenizer.from_file(str(args.corpus / "tokenizer.json")).save(str(args.out / "tokenizer.json"), pretty=False)

    reference = GPT2LMHeadModel.from_pretrained(args.out, dtype=torch.float32).eval()
    ids = torch.randint(0, config.vocab, (2, 64), generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        difference = (reference(ids).logits - model(ids)).abs().max().item()
    assert difference < 1e-4, f"transformers computes other logits: {difference}"
    # features.jsonl is made by npm run features and has a limit of its own.
    size = sum(file.stat().st_size for file in args.out.rglob("*") if file.is_file() and file.name != "features.jsonl")
    assert size <= LIMIT, f"the model directory has {size} bytes"
    print(f"{args.out}: {size} bytes, logits within {difference:.1e} of transformers")


if __name__ == "__main__":
    main()
