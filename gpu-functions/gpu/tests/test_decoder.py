"""Every family against what transformers computes, edits included (gpu-functions/fixtures): whole, in chunks, and token by token."""

import json
import unittest
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from safetensors.torch import load_file
from torch import Tensor

from gpu import readahead
from gpu.config import ConfigError, read_spec
from gpu.decoder import Decoder, Taken
from gpu.edits import Edit, Latent
from gpu.row import PlacedEdit, RowEdits
from gpu.weights import Linear, Weights

FIXTURES = Path(__file__).parents[2] / "fixtures"
TOLERANCE = 2e-4
SLOTS = 3


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

    def row(self, case: dict[str, Any]) -> RowEdits:
        placed = [PlacedEdit(self.edit(e), e["boundary"], e.get("positions", "all")) for e in case["edits"]]
        return RowEdits(placed, case["prompt"], self.decoder.spec.width)

    def run(self, case: dict[str, Any], chunk: int, slot: int = 0, row: RowEdits | None = None) -> tuple[Tensor, Tensor]:
        """Logits [T, V] and boundaries [L + 1, T, D], in chunks in which the same edits act."""
        ids, logits, streams, at = case["ids"], [], [], 0
        row = row or self.row(case)
        while at < len(ids):
            end = row.changes_at(at, min(at + chunk, len(ids)))
            self.decoder.tables.set(slot, row.at(at))
            taken = Taken(frozenset(range(self.decoder.spec.layers + 1)), measure=True)
            step = self.decoder.forward(torch.tensor([ids[at:end]]), torch.arange(at, end)[None], torch.tensor([slot]), end, taken=taken)
            row.record(at, taken.measured[0].numpy())
            logits.append(step[0])
            streams.append(torch.stack([x[0] for _, x in sorted(taken.streams.items())]))
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
            self.fixture.decoder.tables.set(slot, self.fixture.row(case).at(len(case["ids"]) - 1))
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


class SixteenBits(unittest.TestCase):
    """Matrices of 16 bits: logits close to float32's, and a stream in which no edit is rounded away."""

    def test_logits_are_those_of_float32_on_the_same_matrices(self) -> None:
        """Relative to their length. What is left is the rounding of keys and values; a trained model hears less of it than random matrices."""
        bundled = FIXTURES.parent / "bundled" / "tiller-tales"
        limits = {bundled: (2e-3, 2e-4), FIXTURES / "tiny-gpt2": (6e-3, 6e-4), FIXTURES / "tiny-gemma2": (6e-3, 6e-4)}
        for directory, given in limits.items():
            for dtype, limit in zip((torch.bfloat16, torch.float16), given, strict=True):
                decoder = Decoder.from_directory(directory, "cpu", dtype, 1)
                reference = Decoder(decoder.spec, widened(decoder.weights), 1)
                if decoder.spec.embedding_scale is not None:
                    reference.embedding_scale = decoder.embedding_scale
                found, wanted = self.logits(decoder), self.logits(reference)
                with self.subTest(directory.name, dtype=dtype):
                    self.assertEqual(found.dtype, torch.float32)
                    self.assertLess(((found - wanted).norm() / wanted.norm()).item(), limit)

    def test_rounding_a_model_of_32_bits_is_what_is_left_of_the_distance_to_it(self) -> None:
        bundled = FIXTURES.parent / "bundled" / "tiller-tales"
        wanted, *found = (
            self.logits(Decoder.from_directory(bundled, "cpu", dtype, 1)) for dtype in (torch.float32, torch.bfloat16, torch.float16)
        )
        for logits, limit in zip(found, (3e-3, 4e-4), strict=True):
            self.assertLess(((logits - wanted).norm() / wanted.norm()).item(), limit)

    def logits(self, decoder: Decoder) -> torch.Tensor:
        length = min(200, decoder.context)
        ids, positions = torch.arange(length)[None] * 37 % decoder.spec.vocab, torch.arange(length)[None]
        return decoder.forward(ids, positions, torch.tensor([0]), length)[0]

    def test_an_edit_far_below_what_16_bits_hold_is_made(self) -> None:
        decoder = Decoder.from_directory(FIXTURES / "tiny-gemma2", "cpu", torch.bfloat16, 2)
        width = decoder.spec.width
        direction = torch.ones(width)
        row = RowEdits([PlacedEdit(Edit("SIMPLE_ADDITIVE", direction, 1e-4), 1)], 4, width)
        streams = []
        for slot, programs in ((0, {}), (1, row.at(0))):
            decoder.tables.set(slot, programs)
            taken = Taken(frozenset([1]), measure=True)
            decoder.forward(torch.tensor([[1, 2, 3, 4]]), torch.arange(4)[None], torch.tensor([slot]), 4, taken=taken)
            streams.append(taken.streams[1])
        self.assertLess((streams[1] - streams[0] - 1e-4).abs().max().item(), 2e-6)


def widened(weights: Weights) -> Weights:
    """The same numbers in float32."""

    def linear(part: Linear) -> Linear:
        return replace(part, weight=part.weight.float())

    layers = tuple(
        replace(layer, qkv=linear(layer.qkv), out=linear(layer.out), up=linear(layer.up), down=linear(layer.down)) for layer in weights.layers
    )
    return replace(weights, embedding=weights.embedding.float(), layers=layers, head=weights.head.float())


class Receipts(unittest.TestCase):
    def setUp(self) -> None:
        self.fixture = Fixture("tiny-llama")
        self.plain = next(case for case in self.fixture.cases if case["name"] == "plain-short")
        self.direction = self.fixture.expected["vectors"][0]

    def run_edits(self, *placed: PlacedEdit, chunk: int = 5) -> RowEdits:
        row = RowEdits(list(placed), 8, self.fixture.decoder.spec.width, frozenset([0]))
        self.fixture.run(self.plain, chunk, row=row)
        return row

    def test_say_what_was_done_at_how_many_positions(self) -> None:
        """Each alone at its point: ||delta|| is what the stream differs by."""
        length = len(self.plain["ids"])
        for method, strength, boundary in (("SIMPLE_ADDITIVE", 2.0, 1), ("ABLATE", 0.0, 0), ("ORTHOGONAL_DECOMP", -1.0, 0)):
            row = self.run_edits(PlacedEdit(Edit(method, self.direction, strength), boundary), chunk=1)
            relative = row.relative[0]
            _, before = self.fixture.run(self.plain, 1, row=RowEdits([], 8, self.fixture.decoder.spec.width))
            _, after = self.fixture.run(self.plain, 1, row=row)
            change = (after[boundary] - before[boundary]).norm(dim=-1) / before[boundary].norm(dim=-1)
            with self.subTest(method):
                self.assertEqual((row.positions[0] / 2, row.changed[0] / 2), (length - 1, length - 1))
                self.assertAlmostEqual(relative / (length - 1), change[1:].mean().item(), delta=1e-4)
                self.assertEqual(change[0], 0)

    def test_count_for_each_edit_of_a_point_its_own_change(self) -> None:
        never, always = Edit("PROJECTION_CAP", self.direction, 1e9), Edit("SIMPLE_ADDITIVE", self.direction, 1.0)
        row = self.run_edits(PlacedEdit(never, 1), PlacedEdit(always, 1))
        self.assertEqual(row.changed.tolist(), [0, len(self.plain["ids"]) - 1])

    def test_say_nothing_of_edits_that_did_nothing(self) -> None:
        never = Edit("LATENT_CLAMP", self.direction, 0.0, latent=Latent(self.direction, 1e9, 1e9))
        row = self.run_edits(PlacedEdit(never, 1), PlacedEdit(Edit("ABLATE", self.direction), 2, [(500, 600)]))
        self.assertEqual((row.positions.tolist(), row.changed.tolist(), row.relative.tolist()), ([len(self.plain["ids"]) - 1, 0], [0, 0], [0, 0]))

    def test_schedules_share_the_change_out_over_generated_tokens(self) -> None:
        edit = PlacedEdit(Edit("SIMPLE_ADDITIVE", self.direction, 1.0), 1, schedule=("decay", 2))
        self.assertEqual([edit.share(position, 8) for position in (0, 7, 8, 9, 10, 11)], [1, 1, 1, 0.5, 0, 0])
        self.assertEqual([replace(edit, schedule=("ramp", 2)).share(position, 8) for position in (7, 8, 9, 10)], [1, 0.5, 1, 1])
        self.assertEqual(self.run_edits(edit).positions[0], 7 + 2)

    def test_take_back_what_was_generated_after_the_end(self) -> None:
        edit = PlacedEdit(Edit("SIMPLE_ADDITIVE", self.direction, 1.0), 1)
        whole, cut = self.run_edits(edit, chunk=1), self.run_edits(edit, chunk=1)
        cut.forget(10)
        self.assertEqual((whole.positions[0], cut.positions[0], cut.changed[0]), (len(self.plain["ids"]) - 1, 9, 9))
        self.assertAlmostEqual(cut.relative[0], self.run_edits(replace(edit, positions=[(0, 10)])).relative[0], places=5)

    def test_parts_end_where_other_edits_begin_to_act(self) -> None:
        """The next change is found among the edges; trying every position is the definition."""
        always, ranges, fading = (
            PlacedEdit(Edit("ABLATE", self.direction), 1, positions, schedule)
            for positions, schedule in (("all", "constant"), ([(2, 5), (11, 13)], "constant"), ("generated", ("decay", 3)))
        )
        for edits in ([], [always], [ranges], [fading], [always, ranges, fading]):
            row = RowEdits(edits, 8, self.fixture.decoder.spec.width, frozenset([0, 3]))
            for start in range(20):
                for limit in (start + 1, start + 3, 25):
                    wanted = next((p for p in range(start + 1, limit) if row.active(p) != row.active(start)), limit)
                    with self.subTest(edits=len(edits), start=start, limit=limit):
                        self.assertEqual(row.changes_at(start, limit), wanted)


class ReadingAhead(unittest.TestCase):
    def test_reads_every_byte_of_the_weights_once(self) -> None:
        read: list[tuple[int, int]] = []
        real = readahead.os.preadv

        def preadv(file: int, buffers: list[bytearray], start: int) -> int:
            count = real(file, buffers, start)
            read.append((start, count))
            return count

        with mock.patch.object(readahead, "PIECE", 4096), mock.patch.object(readahead.os, "preadv", preadv):
            for thread in readahead.read_ahead(FIXTURES / "tiny-mistral"):
                thread.join()
        size = sum(path.stat().st_size for path in (FIXTURES / "tiny-mistral").glob("*.safetensors"))
        self.assertEqual(sum(count for _, count in read), size)
        self.assertEqual(readahead.read_ahead(FIXTURES / "nowhere"), [])


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
