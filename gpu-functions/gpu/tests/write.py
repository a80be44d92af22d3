"""Writes rows with the decoder and prints their tokens and receipts: what python.test.ts compares with the CPU engine.

Reads {"directory", "ids", "rows": [[{"method", "vector", "strength", "layer"}]], "sampling", "max_tokens"} from stdin.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch

from gpu.decoder import Decoder, Taken
from gpu.edits import Edit
from gpu.row import PlacedEdit, RowEdits
from gpu.sampling import Settings, sample, uniform

SETTINGS = ("temperature", "top_k", "top_p", "frequency_penalty", "presence_penalty")


def write(request: dict[str, Any]) -> list[dict[str, Any]]:
    """All rows step by step in one batch, one prefill each."""
    ids, sampling, rows = request["ids"], request["sampling"], request["rows"]
    decoder = Decoder.from_directory(Path(request["directory"]), "cpu", torch.float32, len(rows))
    edits = [
        RowEdits(
            [PlacedEdit(Edit(e["method"], torch.tensor(e["vector"]), e["strength"]), e["layer"], "", i) for i, e in enumerate(row)],
            len(ids), decoder.spec.width,
        )
        for row in rows
    ]  # fmt: skip

    def step(tokens: list[list[int]], start: int, slots: list[int]) -> torch.Tensor:
        """The same positions of several rows."""
        end = start + len(tokens[0])
        for slot in slots:
            decoder.tables.set(slot, edits[slot].at(start))
        taken = Taken()
        positions = torch.arange(start, end).expand(len(slots), -1)
        logits = decoder.forward(torch.tensor(tokens), positions, torch.tensor(slots), end, taken)
        for row, slot in enumerate(slots):
            for t in range(end - start):
                edits[slot].record(start + t, torch.stack([each[row, t] for each in taken.measured]))
        return logits[:, -1]

    logits = torch.cat([step([ids], 0, [slot]) for slot in range(len(rows))])
    settings = Settings(*(torch.full((len(rows),), sampling[name]) for name in SETTINGS))
    counts = torch.zeros_like(logits)
    written: list[list[int]] = [[] for _ in rows]
    for index in range(request["max_tokens"]):
        u = uniform(torch.full((len(rows),), sampling["seed"]), torch.full((len(rows),), index))
        chosen = sample(logits, counts, settings, u)
        counts.scatter_add_(1, chosen[:, None], torch.ones_like(counts[:, :1]))
        for row, id in zip(written, chosen.tolist(), strict=True):
            row.append(id)
        if index + 1 < request["max_tokens"]:
            logits = step(chosen[:, None].tolist(), len(ids) + index, list(range(len(rows))))
    return [{"ids": row, "receipts": each.receipts()} for row, each in zip(written, edits, strict=True)]


if __name__ == "__main__":
    print(json.dumps(write(json.load(sys.stdin))))
