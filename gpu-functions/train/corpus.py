"""Reads the training texts, cleans and splits them, trains the tokenizer, writes token arrays.

    python corpus.py --data ../shared/data --out build/corpus

--data holds tinystories/ and classics/ (their terms are in the model card). Held-out TinyStories never enter training; the
demonstration prompt occurs nowhere. Output: tokenizer.json, and per part uint16 token arrays (tales, classics, synthetic, held_out),
each document preceded by <|endoftext|> (id 0).
"""

import argparse
import json
import random
import re
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from generator import stories

VOCAB = 2048
HELD_OUT = 150
SYNTHETIC = 36_000
END = "<|endoftext|>"
DEMO_PROMPT = "The children walked home and"


def clean(text: str) -> str:
    for curly, plain in (("“", '"'), ("”", '"'), ("’", "'"), ("‘", "'"), ("—", " - "), ("–", "-"), ("…", "..."), ("_", "")):
        text = text.replace(curly, plain)
    return re.sub(r"\n+", "\n", re.sub(r"[ \t]+", " ", text)).strip()


def read_tales(data: Path) -> list[str]:
    """TinyStories, without the copies that both files hold, in a fixed order."""
    sample = (data / "tinystories/tinystories_sample.txt").read_text(errors="ignore").split(END)[:-1]
    more = json.loads((data / "tinystories/tinystories_1000.json").read_text())
    kept: dict[str, str] = {}
    for story in map(clean, sample + more):
        key = re.sub(r"\W+", " ", story.lower()).strip()[:150]
        if len(story) > 80:
            kept.setdefault(key, story)
    return list(kept.values())


def read_classics(data: Path) -> list[str]:
    """Pieces of about a thousand characters, cut between paragraphs; headings and tables of contents left out."""
    pieces: list[str] = []
    for file in sorted((data / "classics").glob("*.txt")):
        current = ""
        for paragraph in re.split(r"\n\s*\n", file.read_text(errors="ignore")):
            paragraph = clean(paragraph.replace("\n", " "))
            if len(paragraph) < 60 or paragraph.isupper():
                continue
            current += paragraph + "\n"
            if len(current) > 900:
                pieces.append(current.strip())
                current = ""
    return pieces


def train_tokenizer(texts: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB, special_tokens=[END], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def encode(tokenizer: Tokenizer, documents: list[str]) -> np.ndarray:
    ids: list[int] = []
    for encoding in tokenizer.encode_batch(documents):
        ids.append(0)
        ids += encoding.ids
    return np.array([*ids, 0], dtype=np.uint16)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    shuffle = random.Random(1)
    tales, classics = read_tales(args.data), read_classics(args.data)
    shuffle.shuffle(tales)
    shuffle.shuffle(classics)
    held_out, tales = tales[:HELD_OUT], tales[HELD_OUT:]
    synthetic = [story.text for story in stories(SYNTHETIC, seed=2)]
    for text in tales + classics + synthetic + held_out:
        assert DEMO_PROMPT not in text, "the demonstration prompt is in the corpus: choose another"
    tokenizer = train_tokenizer(tales + classics[:800] + synthetic[:2500])
    args.out.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(args.out / "tokenizer.json"))
    report = {}
    for name, documents in (("tales", tales), ("classics", classics), ("synthetic", synthetic), ("held_out", held_out)):
        ids = encode(tokenizer, documents)
        np.save(args.out / f"{name}.npy", ids)
        size = sum(len(text.encode()) for text in documents)
        report[name] = {"documents": len(documents), "bytes": size, "tokens": len(ids), "bytes_per_token": round(size / len(ids), 3)}
    (args.out / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
