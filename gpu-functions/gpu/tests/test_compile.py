"""The kernels of the models that are served on Modal, compiled for their GPUs: what a GPU's compiler refuses, no interpreter shows."""

import unittest
from unittest import mock

import torch
from triton import compile as compile_kernel
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from gpu import kernels
from gpu.bench import MODELS, random_weights
from gpu.config import read_spec
from gpu.decoder import Decoder
from gpu.fast import FastStep

# L4 and L40S, H100 and H200: what a block may share.
SHARED = {89: 99 * 1024, 90: 227 * 1024}
POINTERS = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.int64: "*i64", torch.int32: "*i32"}


class Launches:
    """In a kernel's place: compiles what it would be launched with for each GPU."""

    def __init__(self, kernel, compiled):
        self.kernel, self.compiled = kernel, compiled

    def __getitem__(self, grid):
        return self.launch

    def launch(self, *given, num_warps: int = 4, **named) -> None:
        names = self.kernel.arg_names
        values = {**dict(zip(names, given, strict=False)), **named}
        constants = {(i,): values[p.name] for i, p in enumerate(self.kernel.params) if p.is_constexpr}
        signature = {name: "constexpr" if (i,) in constants else type_of(values[name]) for i, name in enumerate(names)}
        aligned = {(i,): [["tt.divisibility", 16]] for i, name in enumerate(names) if (i,) not in constants and is_aligned(values[name])}
        key = (self.kernel.__name__, num_warps, str((signature, constants, aligned)))
        for capability in SHARED:
            if (*key, capability) not in self.compiled:
                source = ASTSource(self.kernel, signature=signature, constexprs=constants, attrs=aligned)
                target = GPUTarget("cuda", capability, 32)
                self.compiled[*key, capability] = compile_kernel(source, target=target, options={"num_warps": num_warps})


def type_of(value: torch.Tensor | float) -> str:
    return POINTERS[value.dtype] if isinstance(value, torch.Tensor) else "i32" if isinstance(value, int) else "fp32"


def is_aligned(value: torch.Tensor | float) -> bool:
    return isinstance(value, torch.Tensor) or (isinstance(value, int) and value % 16 == 0)


class Kernels(unittest.TestCase):
    def test_compile_and_fit_for_every_shape_of_the_benchmark(self) -> None:
        for name in ("gpt2-small", "gemma-2-2b", "llama-3.1-8b"):
            with self.subTest(name):
                compiled = self.compile(name)
                self.assertEqual({key[0] for key in compiled}, set(NAMES))
                for (kernel, *_, capability), found in compiled.items():
                    self.assertLessEqual(found.metadata.shared, SHARED[capability], kernel)
                    # The products of attention are for the tensor cores.
                    if kernel == "attend_kernel":
                        self.assertIn("mma", found.asm["ptx"])

    def compile(self, name: str) -> dict:
        # Two layers have all kinds of launches, and a small vocabulary no other.
        config = {**MODELS[name], "vocab_size": 512, "num_hidden_layers": 2, "n_layer": 2}
        spec, compiled = read_spec(config), {}
        decoder = Decoder(spec, random_weights(spec, torch.device("cpu"), torch.bfloat16), 2, 512)
        step = FastStep(decoder)
        with mock.patch.multiple(kernels, **{kernel: Launches(getattr(kernels, kernel), compiled) for kernel in NAMES}):
            for measure in (False, True):
                step(torch.tensor([1, 2]), torch.tensor([0, 0]), torch.tensor([0, 1]), measure)
        return compiled


NAMES = ("join_kernel", "turn_kernel", "attend_kernel", "merge_kernel", "gate_kernel")


if __name__ == "__main__":
    unittest.main()
