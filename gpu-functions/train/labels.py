"""Labels SAE latents from the words they fire on most.

    python labels.py --corpus build/corpus --checkpoint build/model.pt --out ../bundled/tiller-tales

A latent gets a label when its strongest activations agree: on one topic's vocabulary, on mood words, or on one word. The others get
none. The label is what the latent reads; evaluate.py measures what it writes.
"""

import argparse
import json
import re
from collections import Counter
from pathlib import Path

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer

import fragments
from directions import LAYER
from export import load_checkpoint
from sae import LATENTS, SOURCE, activations, encode, windows

TOP = 24
AGREE = 0.6
STRENGTH = 0.35  # suggested, as a share of the stream's mean length
COMMON = set("a an and the of to in on at by with for from it its is was were be been he she they we i you his her him them their this that there then so but not no as up out down into over all one two had has have did do does very went came said what when who".split())


def vocabulary() -> dict[str, set[str]]:
    """Content words that belong to one topic only, plus the two moods."""
    counted = {topic: {w for part in parts for text in part for w in re.findall(r"[a-z]{3,}", text.lower())} - COMMON for topic, parts in fragments.TOPICS.items()}
    often = Counter(word for words in counted.values() for word in words)
    topics = {topic: {word for word in words if often[word] == 1} for topic, words in counted.items()}
    lines = {mood: {w for text in fragments.MOOD_LINES[mood] for w in re.findall(r"[a-z]{3,}", text.lower())} - COMMON for mood in ("happy", "sad", "neutral")}
    for mood, other, extra in (("happy", "sad", fragments.HAPPY), ("sad", "happy", fragments.SAD)):
        topics[f"{mood} mood"] = (lines[mood] - lines[other] - lines["neutral"]) | set(extra)
    return topics


def word_at(pieces: list[str], position: int) -> str:
    """The whole word around a token, lower case; punctuation stays as it is."""
    start = position
    while start > 1 and not pieces[start].startswith((" ", "\n")) and re.match(r"[A-Za-z']", pieces[start]):
        start -= 1
    end = position + 1
    while end < len(pieces) and re.match(r"[A-Za-z']", pieces[end]):
        end += 1
    return "".join(pieces[start:end]).strip().lower() or repr(pieces[position])


def label_of(words: list[str], topics: dict[str, set[str]]) -> str | None:
    counts = Counter(words)
    word, top = counts.most_common(1)[0]
    for topic, members in topics.items():
        inside = [w for w in words if w in members or w.rstrip("s") in members]
        if len(inside) >= AGREE * len(words) and len(set(inside)) >= 3:
            examples = ", ".join(w for w, _ in Counter(inside).most_common(3))
            return f"{topic}: {examples}"
    if top >= AGREE * len(words):
        return f'the word "{word}"' if re.search(r"[a-z]", word) else f"the sign {word}"
    return None


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(2)
    model = load_checkpoint(args.checkpoint)
    tokenizer = Tokenizer.from_file(str(args.corpus / "tokenizer.json"))
    sae = {name: tensor.float() for name, tensor in load_file(args.out / "sources" / SOURCE / "sae_weights.safetensors").items()}
    ids = windows(args.corpus, model.config.context, {"tales": 250, "synthetic": 350, "classics": 200})
    length = ids.shape[1] - 1
    latents = encode(sae, activations(model, ids)[:, 1:]).flatten(0, 1)
    topics = vocabulary()
    pieces = [[tokenizer.decode([i]) for i in row] for row in ids.tolist()]
    norm = json.loads((args.out / "sources" / SOURCE / "report.json").read_text())["mean_residual_norm"]
    labels = {}
    for index in range(LATENTS):
        column = latents[:, index]
        values, places = column.topk(TOP)
        if values[-1] <= 0:
            continue
        words = [word_at(pieces[p // length], p % length + 1) for p in places.tolist()]
        label = label_of(words, topics)
        if label is not None:
            tokens = [word for word, _ in Counter(words).most_common(6)]
            labels[str(index)] = {"label": label, "strength": round(STRENGTH * norm), "tokens": tokens, "density": round((column > 0).float().mean().item(), 5), "max_activation": round(values[0].item(), 2)}
    file = args.out / "sources" / SOURCE / "labels.json"
    file.write_text(json.dumps({"labels": labels}, separators=(",", ":"), ensure_ascii=False) + "\n")
    kinds = Counter("word" if entry["label"].startswith("the ") else entry["label"].split(":")[0] for entry in labels.values())
    print(f"{len(labels)} of {LATENTS} latents have a label: {dict(kinds.most_common())}")


if __name__ == "__main__":
    main()
