"""Every family against what transformers computes, edits included (gpu-functions/fixtures): whole, in chunks, and token by token."""

import json
import unittest
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from gpu.config import ConfigError, read_spec
from gpu.decoder import Decoder
from gpu.edits import Edit, Latent, Program, compile_point

FIXTURES = Path(__file__).parents[2] / "fixtures"
TOLERANCE = 2e-4
SLOTS = 3


def covers(edit: dict[str, Any], position: int, prompt: int) -> bool:
    match edit.get("positions", "all"):
        case "all":
            return True
        case "prompt":
            return position < prompt
        case "generated":
            return position >= prompt
        case "prompt_except_last":
            return position < prompt - 1
        case ranges:
            return any(start <= position < end for start, end in ranges)


class Fixture:
    def __init__(self, name: str):
        meta = json.loads((FIXTURES / f"{name}.cases.json").read_text())
        self.cases = meta["cases"]
        self.expected = load_file(FIXTURES / f"{name}.expected.safetensors")
        self.decoder = Decoder.from_directory(FIXTURES / name, "cpu", torch.float32, SLOTS)

    def edit(self, given: dict[str, Any]) -> Edit:
        latent = given.get("latent")
        return Edit(
            given["method"], self.expected["vectors"][given["vector"]], given.get("strength", 0.0), given.get("min"), given.get("max"),
            None if latent is None else Latent(torch.tensor(latent["read"]), latent["zero"], latent["edge"]),
        )  # fmt: skip

    def programs(self, case: dict[str, Any], position: int) -> dict[int, Program]:
        active = [edit for edit in case["edits"] if covers(edit, position, case["prompt"])]
        width = self.decoder.spec.width
        return {b: compile_point([self.edit(e) for e in active if e["boundary"] == b], width) for b in {e["boundary"] for e in active}}

    def run(self, case: dict[str, Any], chunk: int, slot: int = 0) -> tuple[Tensor, Tensor]:
        """Logits [T, V] and boundaries [L + 1, T, D], in chunks in which the same edits act."""
        ids, logits, streams, at = case["ids"], [], [], 0
        def active(position: int) -> list[bool]:
            return [covers(edit, position, case["prompt"]) for edit in case["edits"]]
        while at < len(ids):
            end = at + 1
            while end < min(at + chunk, len(ids)) and active(end) == active(at):
                end += 1
            self.decoder.tables.set(slot, self.programs(case, at))
            captured: list[Tensor] = []
            step = self.decoder.forward(torch.tensor([ids[at:end]]), torch.arange(at, end)[None], torch.tensor([slot]), end, captured)
            logits.append(step[0])
            streams.append(torch.stack([x[0] for x in captured]))
            at = end
        return torch.cat(logits), torch.cat(streams, 1)

    def worst(self, case: dict[str, Any], logits: Tensor, streams: Tensor) -> float:
        keep = case["keep"]
        wanted_logits, wanted = self.expected[f"{case['name']}.logits"], self.expected[f"{case['name']}.resid"]
        if wanted_logits.shape[0] != len(keep):
            wanted_logits, wanted = wanted_logits[keep], wanted[:, keep]
        return max((logits[keep] - wanted_logits).abs().max().item(), (streams[:, keep] - wanted).abs().max().item())


class EveryFamily(unittest.TestCase):
    def test_agrees_with_transformers_at_every_boundary(self) -> None:
        names = sorted(path.name.removesuffix(".cases.json") for path in FIXTURES.glob("*.cases.json"))
        self.assertGreaterEqual(len(names), 9)
        for name in names:
            fixture = Fixture(name)
            for chunk in (10_000, 7, 1):
                for case in fixture.cases:
                    with self.subTest(model=name, chunk=chunk, case=case["name"]):
                        self.assertLess(fixture.worst(case, *fixture.run(case, chunk)), TOLERANCE)


class OneModel(unittest.TestCase):
    def setUp(self) -> None:
        self.fixture = Fixture("tiny-gemma2")
        self.cases = {case["name"]: case for case in self.fixture.cases}

    def test_rows_of_one_step_do_not_see_each_other(self) -> None:
        """The last token of three rows of other lengths and edits, in one call: each as it is alone."""
        rows = [self.cases[name] for name in ("plain-long", "additive-middle", "ablate-last")]
        alone = []
        for slot, case in enumerate(rows):
            alone.append(self.fixture.run(case, 10_000, slot)[0][-1])
            self.fixture.decoder.tables.set(slot, self.fixture.programs(case, len(case["ids"]) - 1))
        ids = torch.tensor([[case["ids"][-1]] for case in rows])
        positions = torch.tensor([[len(case["ids"]) - 1] for case in rows])
        together = self.fixture.decoder.forward(ids, positions, torch.arange(3), int(positions.max()) + 1)
        for row, wanted in enumerate(alone):
            self.assertLess((together[row, 0] - wanted).abs().max().item(), TOLERANCE)

    def test_an_edit_leaves_what_comes_before_it_alone_to_the_bit(self) -> None:
        plain, edited = self.cases["plain-short"], self.cases["additive-last"]
        _, before = self.fixture.run(plain, 10_000)
        _, after = self.fixture.run(edited, 10_000)
        boundary = edited["edits"][0]["boundary"]
        self.assertTrue(torch.equal(before[:boundary], after[:boundary]))
        self.assertFalse(torch.equal(before[boundary], after[boundary]))

    def test_zero_strength_is_the_baseline_to_the_bit(self) -> None:
        plain = self.cases["plain-short"]
        nothing = {**plain, "edits": [{"method": "SIMPLE_ADDITIVE", "boundary": 1, "vector": 0, "strength": 0.0}]}
        self.assertTrue(torch.equal(self.fixture.run(plain, 10_000)[0], self.fixture.run(nothing, 10_000)[0]))


class Configurations(unittest.TestCase):
    def config(self, name: str, **changes: Any) -> dict[str, Any]:
        return {**json.loads((FIXTURES / name / "config.json").read_text()), **changes}

    def test_refuses_what_it_does_not_do(self) -> None:
        for config, words in (
            (self.config("tiny-llama", model_type="mamba"), "model_type 'mamba' is not supported; gpt2"),
            (self.config("tiny-llama", rope_parameters={"rope_type": "yarn", "factor": 4}), "rope_type 'yarn' is not supported"),
            (self.config("tiny-llama", sliding_window=128), "sliding_window 128 is not supported by this family"),
            (self.config("tiny-llama", num_key_value_heads=3), "is not a multiple of num_key_value_heads 3"),
            (self.config("tiny-llama", hidden_act="relu"), "hidden_act 'relu' is not supported by this family; 'silu' is"),
            (self.config("tiny-llama", hidden_size="wide"), "hidden_size must be a number above 0"),
            (self.config("tiny-gpt2", activation_function="relu"), "activation_function 'relu'"),
            (self.config("tiny-gpt2", quantization_config={"bits": 4}), "quantization_config"),
        ):
            with self.subTest(words), self.assertRaisesRegex(ConfigError, words):
                read_spec(config)


if __name__ == "__main__":
    unittest.main()
