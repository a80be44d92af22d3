"""The kernels against the decoder, which is their definition: on a GPU, or on a CPU in Triton's interpreter."""

import os
import unittest
from itertools import product
from pathlib import Path
from unittest import mock

import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

from gpu.decoder import Decoder, Taken  # noqa: E402
from gpu.edits import Edit, Latent, compile_point  # noqa: E402
from gpu.fast import FastStep, new_fast_step  # noqa: E402

FIXTURES = Path(__file__).parents[2] / "fixtures"
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
PROMPT = 70
# A key or value that lies between two numbers of 16 bits may be rounded to the other one.
TOLERANCE = {torch.float32: 2e-4, torch.bfloat16: 5e-2, torch.float16: 4e-4}


class Steps(unittest.TestCase):
    def test_are_those_of_the_decoder_in_every_family(self) -> None:
        """Four rows: none, one, several and all kinds of edits; two steps, the second of which reads what the first kept."""
        names = sorted(path.name.removesuffix(".cases.json") for path in FIXTURES.glob("*.cases.json"))
        self.assertGreaterEqual(len(names), 9)
        for name in names:
            with self.subTest(name):
                self.compare(name, torch.float32)

    def test_are_those_of_the_decoder_with_matrices_of_16_bits(self) -> None:
        """With biases and without: every place where two parts are read or written."""
        # The interpreter cuts numbers off to bfloat16 where a GPU rounds them.
        types = (torch.bfloat16, torch.float16) if DEVICE == "cuda" else (torch.float16,)
        for name, dtype in product(("tiny-qwen2", "tiny-gemma2"), types):
            with self.subTest(name, dtype=dtype):
                self.compare(name, dtype)

    def compare(self, name: str, dtype: torch.dtype) -> None:
        torch.manual_seed(0)
        reference, fast = (Decoder.from_directory(FIXTURES / name, DEVICE, dtype, 5) for _ in range(2))
        spec = reference.spec
        vectors = torch.randn(8, spec.width)
        latent = Latent(vectors[0], 0.1, 0.3)
        programs = [
            {},
            {1: [Edit("SIMPLE_ADDITIVE", vectors[0], 0.7)]},
            {
                0: [Edit("ABLATE", vectors[1]), Edit("ORTHOGONAL_DECOMP", vectors[2], -1.5), Edit("SIMPLE_ADDITIVE", vectors[3], 0.2)],
                spec.layers: [Edit("ABLATE", vectors[4])],
            },
            {
                1: [
                    Edit("PROJECTION_CAP", vectors[5], -0.2), Edit("PROJECTION_CLAMP", vectors[6], 0.0, -0.1, 0.1),
                    Edit("LATENT_CLAMP", vectors[7], 2.0, latent=latent), Edit("SIMPLE_ADDITIVE", vectors[3], 0.4),
                ],
                2: [Edit("PROJECTION_CAP", vectors[0], 1e9)],
            },
        ]  # fmt: skip
        ids = torch.randint(0, spec.vocab, (4, PROMPT + 3), device=DEVICE)
        slots = torch.tensor([2, 0, 3, 1], device=DEVICE)
        # Rows of other lengths.
        lengths = torch.tensor([PROMPT, 3, PROMPT - 21, 1], device=DEVICE)
        for decoder in (reference, fast):
            for row, slot in enumerate(slots.tolist()):
                compiled = {b: compile_point(edits, spec.width) for b, edits in programs[row].items()}
                decoder.tables.set(slot, compiled)
                length = int(lengths[row])
                positions = torch.arange(length, device=DEVICE)[None]
                decoder.forward(ids[row : row + 1, :length], positions, slots[row : row + 1], length)
        step = FastStep(fast)
        for t in range(2):
            token, positions = ids.gather(1, lengths[:, None] + t)[:, 0], lengths + t
            taken = Taken(measure=True)
            wanted = reference.forward(token[:, None], positions[:, None], slots, PROMPT + 3, taken=taken)[:, 0]
            found, measured = step(token, positions, slots, True)
            assert taken.measured is not None and measured is not None
            self.assertLess((found - wanted).abs().max().item(), TOLERANCE[dtype])
            self.assertLess((measured - taken.measured[:, 0]).abs().max().item(), TOLERANCE[dtype])
            self.assertTrue(torch.equal(measured > 0, taken.measured[:, 0] > 0))
            plain, nothing = step(token, positions, slots, False)
            self.assertIsNone(nothing)
            self.assertTrue(torch.equal(plain, found))

    def test_are_trusted_where_they_agree_with_the_decoder_and_not_where_they_do_not(self) -> None:
        said: list[str] = []
        for name in ("tiny-gemma2", "tiny-qwen3"):
            decoder = Decoder.from_directory(FIXTURES / name, DEVICE, torch.float32, 2)
            self.assertIsNotNone(new_fast_step(decoder, said.append))
        self.assertEqual(said, [])
        with mock.patch("gpu.kernels.PARTS", 3):  # No power of two: it cannot be compiled.
            self.assertIsNone(new_fast_step(decoder, said.append))
        with mock.patch("gpu.kernels.SLOTS", 4):  # Tables of another layout: it reads the wrong edits.
            self.assertIsNone(new_fast_step(decoder, said.append))
        self.assertRegex(said[0], "not used: [A-Za-z]+Error")
        self.assertRegex(said[1], "not used: they differ")


if __name__ == "__main__":
    unittest.main()
