"""The loop: steps that are started before others are read, rows that come and go, and what is said of them."""

import unittest
from pathlib import Path
from typing import Any

import torch

from gpu.decoder import Decoder, Taken
from gpu.edits import Edit
from gpu.loop import Generation, Loop, Reading, Row
from gpu.row import PlacedEdit, RowEdits
from gpu.step import Steps

DIRECTORY = Path(__file__).parents[2] / "fixtures" / "tiny-gpt2"
SAMPLING = {"temperature": 0.8, "top_k": 0, "top_p": 0.9, "frequency_penalty": 0.2, "presence_penalty": 0.0, "seed": 5, "logprobs": 2}
SLOTS = 4


class Run:
    """A loop, and what it says."""

    def __init__(self, behind: int):
        self.decoder = Decoder.from_directory(DIRECTORY, "cpu", torch.float32, SLOTS + 1)
        self.loop = Loop(self.decoder, Steps(self.decoder, SLOTS), self.hear, behind)
        self.tokens: dict[str, list[Any]] = {}
        self.finished: dict[str, Any] = {}
        self.failed: list[str] = []

    def hear(self, event: str, fields: dict[str, Any], _: bytes = b"") -> None:
        if event == "tokens":
            self.tokens.setdefault(fields["id"], []).extend(fields["tokens"])
        elif event == "finished":
            self.finished[fields["id"]] = fields["tallies"]
        elif event == "failed":
            self.failed.append(fields["id"])

    def row(self, prompt: list[int], strength: float = 0.0, known: list[int] | None = None) -> Row:
        edits = [PlacedEdit(Edit("SIMPLE_ADDITIVE", torch.arange(48.0).cos(), strength), 2)] if strength else []
        return Row(prompt, RowEdits(edits, len(prompt), 48), known or [])

    def generate(self, id: str, rows: list[Row], most: int = 12, eos: frozenset[int] = frozenset(), **sampling: Any) -> Generation:
        job = Generation(id, rows, {**SAMPLING, **sampling}, most, eos)
        self.loop.submit(job)
        return job

    def until_idle(self) -> None:
        for _ in range(1000):
            if not self.loop.busy:
                return
            self.loop.turn()
        raise AssertionError("the loop never comes to an end")

    def ids(self, id: str, place: int = 0) -> list[int]:
        return [token[2] for token in self.tokens[id] if token[0] == place]


class Loops(unittest.TestCase):
    def test_a_step_that_is_read_late_says_the_same(self) -> None:
        """Rows of other lengths and edits that come and go: one step behind, two, and none."""
        runs = []
        for behind in (0, 1, 2):
            run = Run(behind)
            prompt = [1, 2, 3]
            run.generate("a", [run.row(prompt), run.row(prompt, 4.0)], 12)
            run.generate("b", [run.row([5, 6, 7, 8, 9], 2.0)], 5)
            for _ in range(3):
                run.loop.turn()
            run.generate("c", [run.row([4] * 20)], 9, temperature=0.0)
            run.until_idle()
            for id, counts in (("a", [12, 12]), ("b", [5]), ("c", [9])):
                run.loop.finish(id, counts)
            self.assertEqual(sorted(run.loop.free), list(range(SLOTS)))
            runs.append(run)
        for run in runs[1:]:
            self.assertEqual(run.finished, runs[0].finished)
            for id in "abc":
                self.assertEqual(sorted(run.tokens[id]), sorted(runs[0].tokens[id]))

    def test_a_token_that_ends_the_text_ends_the_row_and_its_receipts(self) -> None:
        """Positions that were computed after the end, before it was read, are no part of them."""
        whole = Run(0)
        whole.generate("a", [whole.row([1, 2, 3], 4.0)])
        whole.until_idle()
        ids = whole.ids("a")
        end = next(i for i in range(3, 12) if ids[i] not in ids[:i])
        for behind in (0, 1):
            run = Run(behind)
            run.generate("a", [run.row([1, 2, 3], 4.0)], eos=frozenset([ids[end]]))
            run.until_idle()
            self.assertEqual(run.ids("a"), ids[: end + 1])
            run.loop.finish("a", [end + 1])
            [[[positions, changed, _]]] = run.finished["a"]
            self.assertEqual((positions, changed), (3 + end, 3 + end))

    def test_a_row_whose_text_ended_earlier_is_told_so(self) -> None:
        run = Run(1)
        run.generate("a", [run.row([1, 2, 3], 4.0)])
        for _ in range(8):
            run.loop.turn()
        run.loop.end("a", 0)
        run.until_idle()
        run.loop.finish("a", [3])
        [[[positions, _, _]]] = run.finished["a"]
        self.assertEqual(positions, 3 + 2)
        self.assertLess(len(run.ids("a")), 12)

    def test_a_row_that_is_dropped_leaves_its_slot_and_the_others_alone(self) -> None:
        alone = Run(1)
        alone.generate("kept", [alone.row([1, 2, 3], 4.0)])
        alone.until_idle()
        run = Run(1)
        run.generate("kept", [run.row([1, 2, 3], 4.0)])
        run.generate("dropped", [run.row([4, 5]), run.row([4, 5], 1.0)])
        run.generate("waiting", [run.row([9]) for _ in range(4)])
        for _ in range(4):
            run.loop.turn()
        run.loop.drop("dropped")
        run.loop.drop("waiting")
        self.assertEqual(len(run.loop.free), SLOTS - 1)
        run.until_idle()
        self.assertEqual(run.ids("kept"), alone.ids("kept"))
        self.assertNotIn("waiting", run.tokens)

    def test_known_tokens_are_taken_as_they_are_and_the_row_goes_on_from_them(self) -> None:
        whole = Run(1)
        whole.generate("a", [whole.row([1, 2, 3], 4.0)])
        whole.until_idle()
        run = Run(1)
        run.generate("a", [run.row([1, 2, 3], 4.0, whole.ids("a")[:7])])
        run.until_idle()
        self.assertEqual(run.ids("a"), whole.ids("a"))

    def test_logits_that_are_not_finite_end_the_request_and_no_other(self) -> None:
        run = Run(1)
        run.generate("broken", [run.row([1, 2, 3], 1e38)])
        run.generate("fine", [run.row([1, 2, 3])])
        run.until_idle()
        self.assertEqual(run.failed, ["broken"])
        self.assertEqual(len(run.ids("fine")), 12)
        self.assertEqual(len(run.loop.free), SLOTS - 1 + 1)

    def test_a_text_is_read_in_parts_that_join(self) -> None:
        run = Run(1)
        ids = [i % 60 for i in range(150)]
        found: list[tuple[dict[str, Any], bytes]] = []
        run.loop.report = lambda event, fields, binary=b"": found.append(({"event": event, **fields}, binary))
        run.loop.submit(Reading("r", [run.row(ids[:-1])], ids[10:], 9, 2, [1]))
        run.until_idle()
        parts, last = found[:-1], found[-1]
        self.assertEqual(last[0]["event"], "finished")
        self.assertEqual([(part["start"], part["end"]) for part, _ in parts], [(0, 64), (64, 128), (128, 149)])
        logprobs = [logprob for part, _ in parts for logprob, _ in part["scored"]]
        logits = run.decoder.forward(torch.tensor([ids[:-1]]), torch.arange(149)[None], torch.tensor([0]), 149)[0]
        wanted = torch.log_softmax(logits.double(), -1)[9:].gather(1, torch.tensor(ids[10:])[:, None])[:, 0]
        self.assertLess((torch.tensor(logprobs) - wanted).abs().max().item(), 1e-4)
        self.assertEqual(sum(len(binary) for _, binary in parts), 149 * 48 * 4)

    def test_a_text_is_compared_with_and_without_edits(self) -> None:
        """Both rows in the same calls: what is told is what two passes over the text give, and no edit counts where nothing is predicted."""
        run = Run(1)
        ids = [i % 60 for i in range(150)]
        found: list[tuple[dict[str, Any], bytes]] = []
        run.loop.report = lambda event, fields, binary=b"": found.append(({"event": event, **fields}, binary))
        edited = run.row(ids, 4.0)
        run.loop.submit(Reading("r", [run.row(ids), edited], ids[10:], 9, 0, [3]))
        run.until_idle()
        parts, last = found[:-1], found[-1][0]
        self.assertEqual((last["event"], last["tallies"][0], last["tallies"][1][0][0]), ("finished", [], 149))
        self.assertEqual(sorted(run.loop.free), list(range(SLOTS)))

        def scores(row: Row | None) -> torch.Tensor:
            run.decoder.tables.set(0, {} if row is None else row.edits.at(0))
            taken = Taken(frozenset([3]))
            logits = run.decoder.forward(torch.tensor([ids]), torch.arange(150)[None], torch.tensor([0]), 150, taken=taken)[0]
            if row is None:
                streams = torch.cat([torch.frombuffer(bytearray(binary), dtype=torch.float32).view(-1, 48) for _, binary in parts])
                self.assertLess((streams - taken.streams[3][0]).abs().max().item(), 1e-4)
            return torch.log_softmax(logits.double(), -1)[9:149]

        q, r = scores(edited), scores(None)
        targets = torch.tensor(ids[10:])[:, None]
        wanted = torch.stack([q.gather(1, targets)[:, 0], r.gather(1, targets)[:, 0], (q.exp() * (q - r)).sum(-1)], 1)
        told = torch.tensor([[logprob, *plain] for part, _ in parts for logprob, _, plain in part["scored"]], dtype=torch.float64)
        self.assertLess((told - wanted).abs().max().item(), 1e-4)
        self.assertGreater(told[:, 2].min().item(), 0)

    def test_a_text_whose_logits_are_not_finite_fails_and_frees_its_rows(self) -> None:
        run = Run(1)
        ids = [1, 2, 3]
        run.loop.submit(Reading("r", [run.row(ids), run.row(ids, 1e39)], [2, 3], 0, 0, []))
        run.until_idle()
        self.assertEqual((run.failed, len(run.loop.free)), (["r"], SLOTS))


if __name__ == "__main__":
    unittest.main()
