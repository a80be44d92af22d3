"""Measures the bundled model as it is shipped and writes the tables of its model card.

    python evaluate.py --model ../bundled/tiller-tales --corpus build/corpus

Reads the exported directory with transformers and its sources as files, steers with a hook, and replaces the part of the card
between the markers. Perplexity is that of the generated text under the model without steering.
"""

import argparse
import json
import math
import re
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor
from transformers import GPT2LMHeadModel

from export import LIMIT
from labels import vocabulary

POSITIVE = set("happy happily happiness glad joy joyful cheerful cheer cheered excited proud proudly delighted merry pleased thankful smile smiled smiles smiling laugh laughed laughs laughing laughter giggled fun wonderful love loved loves lovely hug hugged hugs best great beautiful hooray warm kind danced sang enjoyed lucky delight".split())
NEGATIVE = set("sad sadly sadness lonely upset unhappy gloomy sorry miserable hurt hurts afraid scared heartbroken cry cried cries crying tears sob sobbed wept weep terrible worst awful pain sorrow angry alone broken ugly hated hate bad heavy cold sick lost fear grief".split())
POLITE = set("please thank thanks kind kindly politely welcome pardon excuse gently dear pleasure bow".split())
RUDE = set("stupid shut fool dumb idiot shouted yelled snapped barked ugly rudely grabbed pushed silly move mine tongue".split())
PROMPTS = ["The children", "One day, Anna", "Ben opened the door and", "My friend and I", "In the morning, the boy", "The old woman looked at", "Then Lucy", "On the way home, they"]
SAMPLE_PROMPTS = ["Once upon a time, there was", "One day, Anna", "Ben and his dog", "The little bird was", "In the morning, Zoe", "My friend and I", "The children went to", "Lily opened the door and", "Tom was hungry.", "Mia and her brother"]
PER_PROMPT, TOKENS, TEMPERATURE = 12, 48, 0.7
PER_TOPIC = 3
# Strengths of the curve, as shares of the suggested one.
SHARES = [-2, -1.6, -1.3, -1, -0.8, -0.5, -0.25, 0, 0.25, 0.5, 0.8, 1, 1.3, 1.6, 2]


class Steered:
    """The shipped model with one additive edit at a layer's resid_pre."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.model = GPT2LMHeadModel.from_pretrained(folder, dtype=torch.float32).eval()
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))

    def source(self, name: str) -> tuple[int, Tensor, dict]:
        """Layer, rows W_dec and labels of a source."""
        path = self.folder / "sources" / name
        labels = json.loads((path / "labels.json").read_text())["labels"]
        return int(name.split("-")[0]), load_file(path / "sae_weights.safetensors")["W_dec"].float(), labels

    @torch.no_grad()
    def generate(self, prompt: str, count: int, tokens: int, edit: tuple[int, Tensor] | None = None, seed: int = 0) -> list[list[int]]:
        """`count` continuations as token ids, without the prompt, cut at the end of text."""
        ids = [0, *self.tokenizer.encode(prompt).ids]
        torch.manual_seed(seed)
        hook = None
        if edit is not None:
            layer, delta = edit
            hook = self.model.transformer.h[layer].register_forward_pre_hook(lambda _m, args: (args[0] + delta, *args[1:]))
        try:
            out = self.model.generate(
                torch.tensor([ids] * count), attention_mask=torch.ones(count, len(ids)), do_sample=True, temperature=TEMPERATURE, top_k=0,
                max_new_tokens=tokens, pad_token_id=0,
            )  # fmt: skip
        finally:
            if hook is not None:
                hook.remove()
        rows = [row[len(ids) :].tolist() for row in out]
        return [row[: row.index(0)] if 0 in row else row for row in rows]

    @torch.no_grad()
    def loss(self, prompt: str, rows: list[list[int]]) -> tuple[float, int]:
        """Summed nats and number of tokens of continuations under the model without steering."""
        start = [0, *self.tokenizer.encode(prompt).ids]
        total, count = 0.0, 0
        for row in rows:
            if not row:
                continue
            logits = self.model(torch.tensor([start + row])).logits[0, len(start) - 1 : -1]
            total += F.cross_entropy(logits, torch.tensor(row), reduction="sum").item()
            count += len(row)
        return total, count

    def text(self, row: list[int]) -> str:
        return self.tokenizer.decode(row)


def words_of(texts: list[str]) -> list[str]:
    return re.findall(r"[a-z]+", " ".join(texts).lower())


def measure(steered: Steered, edit: tuple[int, Tensor] | None) -> tuple[list[str], float]:
    """The words of PER_PROMPT continuations of every prompt, and their perplexity without steering."""
    texts, nats, tokens = [], 0.0, 0
    for i, prompt in enumerate(PROMPTS):
        rows = steered.generate(prompt, PER_PROMPT, TOKENS, edit, seed=100 + i)
        texts += map(steered.text, rows)
        more = steered.loss(prompt, rows)
        nats, tokens = nats + more[0], tokens + more[1]
    return words_of(texts), math.exp(nats / tokens)


def mood_curve(steered: Steered, layer: int, direction: Tensor, suggested: float) -> list[dict]:
    """Share of positive among mood words, and perplexity, per strength."""
    rows = []
    for strength in (round(share * suggested) for share in SHARES):
        words, perplexity = measure(steered, None if strength == 0 else (layer, strength * direction))
        positive, negative = sum(word in POSITIVE for word in words), sum(word in NEGATIVE for word in words)
        rows.append({"strength": strength, "positive": positive, "negative": negative, "share": positive / max(1, positive + negative), "perplexity": perplexity})
        print(rows[-1], flush=True)
    return rows


def others(steered: Steered, layer: int, rows: Tensor, named: dict, base: float) -> list[str]:
    """Table rows for the directions after the first: how often their words come, per thousand, at minus and plus the suggested strength."""
    topics = vocabulary()
    vocabularies = {"1": ("polite", POLITE, "rude", RUDE), "2": ("sea", topics["sea"], None, None), "3": ("space", topics["space"], None, None)}
    lines = []
    for index, (name, members, opposite, against) in vocabularies.items():
        for factor in (-1, 0, 1):
            strength = factor * named[index]["strength"]
            words, perplexity = measure(steered, (layer, strength * rows[int(index)]) if factor else None)
            per_thousand = lambda chosen: f"{1000 * sum(word in chosen for word in words) / len(words):.1f}"
            counts = f"{name} {per_thousand(members)}" + (f", {opposite} {per_thousand(against)}" if against else "")
            lines.append(f"| {index} {named[index]['label']} | {strength:+d} | {counts} | {perplexity / base:.2f} |")
            print(lines[-1], flush=True)
    return lines


def latent_pull(steered: Steered, layer: int, rows: Tensor, labels: dict) -> list[dict]:
    """For the PER_TOPIC densest latents of each topic or mood: share of its vocabulary among the words written, without and with it."""
    topics = vocabulary()
    ranked = sorted(labels.items(), key=lambda item: -item[1]["density"])
    chosen = [item for topic in topics for item in [i for i in ranked if i[1]["label"].split(":")[0] == topic][:PER_TOPIC]]
    plain_words = words_of([steered.text(r) for i, p in enumerate(PROMPTS) for r in steered.generate(p, 4, TOKENS, None, 300 + i)])
    found = []
    for index, entry in chosen:
        topic = entry["label"].split(":")[0]
        edit = (layer, entry["strength"] * rows[int(index)])
        texts = [(p, steered.generate(p, 4, TOKENS, edit, 300 + i)) for i, p in enumerate(PROMPTS)]
        words = words_of([steered.text(r) for _, rs in texts for r in rs])
        share = lambda ws: sum(w in topics[topic] or w.rstrip("s") in topics[topic] for w in ws) / max(1, len(ws))
        found.append({"index": int(index), "label": entry["label"], "plain": share(plain_words), "steered": share(words), "example": steered.text(texts[0][1][0])})
    return sorted(found, key=lambda row: row["plain"] - row["steered"])


def held_out(steered: Steered, corpus: Path) -> tuple[float, float]:
    """Nats per token and per byte on the held-out real stories, windows of the context without overlap."""
    ids = torch.from_numpy(np.load(corpus / "held_out.npy").astype(np.int64))
    size = json.loads((corpus / "report.json").read_text())["held_out"]["bytes"]
    context = steered.model.config.n_positions
    total, count = 0.0, 0
    with torch.no_grad():
        for start in range(0, len(ids) - 1, context):
            window = ids[start : start + context + 1]
            total += F.cross_entropy(steered.model(window[None, :-1]).logits[0], window[1:], reduction="sum").item()
            count += len(window) - 1
    return total / count, total / size


def section(steered: Steered, corpus: Path) -> str:
    sources = sorted(path.name for path in (steered.folder / "sources").iterdir())
    directions_name, sae_name = next(s for s in sources if s.endswith("directions")), next(s for s in sources if s.endswith("res"))
    token, byte = held_out(steered, corpus)
    report = json.loads((corpus / "report.json").read_text())
    lines = ["### Loss", "", f"Held-out TinyStories ({report['held_out']['documents']} stories, {report['held_out']['tokens']} tokens): **{token:.3f} nats a token, {byte:.3f} nats a byte**.", ""]
    lines += ["### Corpus", "", "| part | documents | bytes | tokens |", "|---|---|---|---|"]
    lines += [f"| {name} | {part['documents']} | {part['bytes']} | {part['tokens']} |" for name, part in report.items()]
    lines += ["", f"### Ten samples, unedited (temperature {TEMPERATURE})", ""]
    for i, prompt in enumerate(SAMPLE_PROMPTS):
        text = steered.text(steered.generate(prompt, 1, 60, None, seed=i)[0]).replace("\n", " ")
        lines.append(f"{i + 1}. **{prompt}**{text}")
    layer, rows, named = steered.source(directions_name)
    curve = mood_curve(steered, layer, rows[0], named["0"]["strength"])
    base = next(row for row in curve if row["strength"] == 0)["perplexity"]
    lines += ["", f"### The mood direction (`{directions_name}`, index 0)", "", f"{len(PROMPTS) * PER_PROMPT} texts of up to {TOKENS} tokens a row; perplexity under the model without steering, and its ratio to strength 0.", ""]
    lines += ["| strength | positive words | negative words | share of positive | perplexity | ratio |", "|---|---|---|---|---|---|"]
    lines += [f"| {r['strength']:+d} | {r['positive']} | {r['negative']} | {r['share']:.0%} | {r['perplexity']:.2f} | {r['perplexity'] / base:.2f} |" for r in curve]
    lines += ["", "### The other directions", "", "Words of each kind per thousand written, at minus and plus the suggested strength.", ""]
    lines += ["| direction | strength | per thousand words | ratio of perplexity |", "|---|---|---|---|", *others(steered, layer, rows, named, base)]
    layer, rows, labels = steered.source(sae_name)
    numbers = json.loads((steered.folder / "sources" / sae_name / "report.json").read_text())
    pulled = latent_pull(steered, layer, rows, labels)
    strength = next(iter(labels.values()))["strength"]
    lines += ["", f"### The SAE (`{sae_name}`)", "", f"{len(rows)} latents, {len(labels)} with a label. On held-out text: " + ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in numbers.items()) + ".", ""]
    lines += [f"Latents that write what they read, at strength {strength}: share of the label's vocabulary among the words written.", "", "| latent | label | plain | steered | example |", "|---|---|---|---|---|"]
    lines += [f"| {r['index']} | {r['label']} | {r['plain']:.1%} | {r['steered']:.1%} | {PROMPTS[0]}{r['example'][:110].replace(chr(10), ' ')} |" for r in pulled[:16]]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--corpus", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(2)
    card = args.model / "README.md"
    text = card.read_text()
    before, rest = text.split("<!-- measured -->")
    after = rest.split("<!-- /measured -->")[1]
    card.write_text(f"{before}<!-- measured -->\n{section(Steered(args.model), args.corpus)}\n<!-- /measured -->{after}")
    size = sum(file.stat().st_size for file in args.model.rglob("*") if file.is_file())
    assert size <= LIMIT, f"the model directory has {size} bytes, at most {LIMIT} are shipped"
    print(f"{args.model}: {size} bytes")


if __name__ == "__main__":
    main()
