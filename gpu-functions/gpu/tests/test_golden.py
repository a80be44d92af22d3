"""The arithmetic that both engines share (shared/golden): edits, draws, tokens."""

import json
import unittest
from pathlib import Path

import torch

from gpu.edits import SLOTS, Edit, EditError, Latent, Tables, compile_point
from gpu.sampling import Settings, sample, uniform

GOLDEN = Path(__file__).parents[3] / "shared" / "golden"


class Edits(unittest.TestCase):
    def test_are_the_formulas_of_the_specification(self) -> None:
        cases = json.loads((GOLDEN / "steering.json").read_text())["cases"]
        self.assertGreater(len(cases), 10)
        for case in cases:
            vectors = torch.tensor(case["vectors"])
            edits = [
                Edit(
                    e["method"], vectors[e["vector"]], e.get("strength", 0.0), e.get("min"), e.get("max"),
                    Latent(torch.tensor(e["latent"]["read"]), e["latent"]["zero"], e["latent"]["edge"]) if "latent" in e else None,
                )
                for e in case["edits"]
            ]  # fmt: skip
            h = torch.tensor(case["h"])
            tables = Tables(2, 1, len(h), torch.device("cpu"))
            tables.set(1, {0: compile_point(edits, len(h))})
            actual = tables.apply(0, h.expand(2, 1, -1), torch.tensor([0, 1]))
            with self.subTest(case["name"]):
                self.assertTrue(torch.equal(actual[0, 0], h), "a slot without edits changes nothing")
                wanted = torch.tensor(case["expected"])
                self.assertLess((actual[1, 0] - wanted).abs().max().item(), 2e-5 * max(1.0, wanted.abs().max().item()))

    def test_that_cannot_be_made_are_refused(self) -> None:
        for edits, words in (
            ([Edit("SIMPLE_ADDITIVE", torch.zeros(4), 1.0)], "must not be zero"),
            ([Edit("ABLATE", torch.tensor([1.0, float("nan"), 0, 0]))], "finite"),
            ([Edit("DANCE", torch.ones(4))], "no method DANCE"),
            ([Edit("ABLATE", torch.ones(4))] * (SLOTS + 1), f"the limit is {SLOTS}"),
        ):
            with self.subTest(words), self.assertRaisesRegex(EditError, words):
                compile_point(edits, 4)


class Draws(unittest.TestCase):
    def test_depend_on_seed_and_position_alone(self) -> None:
        draws = json.loads((GOLDEN / "sample.json").read_text())["draws"]
        seeds, positions = (torch.tensor([draw[name] for draw in draws]) for name in ("seed", "position"))
        self.assertEqual(uniform(seeds, positions).tolist(), [draw["uniform"] for draw in draws])


class Tokens(unittest.TestCase):
    def test_are_those_of_the_specification(self) -> None:
        cases = json.loads((GOLDEN / "sample.json").read_text())["cases"]
        self.assertGreater(len(cases), 10)
        for case in cases:
            logits = torch.tensor([case["logits"]], dtype=torch.float64)
            counts = torch.zeros_like(logits)
            for id, count in case["counts"].items():
                counts[0, int(id)] = count
            settings = case["sampling"]
            rows = Settings(
                *(torch.tensor([settings[name]]) for name in ("temperature", "top_k", "top_p", "frequency_penalty", "presence_penalty"))
            )
            with self.subTest(case=case["sampling"], u=case["u"]):
                logprobs, u = torch.log_softmax(logits, -1), torch.tensor([case["u"]], dtype=torch.float64)
                self.assertEqual(sample(logprobs, counts, rows, u).item(), case["id"])
                drawn, truncated = settings["temperature"] > 0, settings["top_k"] > 0 or settings["top_p"] < 1
                self.assertEqual(sample(logprobs, counts, rows, u, drawn, truncated).item(), case["id"])


if __name__ == "__main__":
    unittest.main()
