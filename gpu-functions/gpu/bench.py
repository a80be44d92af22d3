"""How fast the engine is, on this machine, in one command of at most ten minutes:

  python -m gpu.bench                      (in gpu-functions/; on a GPU all three models)
  python -m gpu.bench --models tiny --streams 1,8 --prompt 32 --new 16     (anywhere)

Random weights of real shapes; a prompt of 512 tokens and 128 new ones; plain, one vector, a vector at every layer, and another
configuration for each stream. Baselines in the same run: transformers with forward hooks, eager and with a static cache, where it is
installed. Every number is the median of several runs; tok/s count decode alone, from the moment all streams have their first token.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from .config import Spec, read_spec
from .decoder import Decoder
from .edits import Edit
from .fast import new_fast_step
from .loop import Generation, Loop, Row
from .row import PlacedEdit, RowEdits
from .step import Steps
from .weights import Layer, Linear, Norm, Weights
from .worker import LENGTHS, receive

GEMMA = {
    "model_type": "gemma2", "hidden_size": 2304, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "num_hidden_layers": 26,
    "intermediate_size": 9216, "vocab_size": 256000, "max_position_embeddings": 8192, "hidden_activation": "gelu_pytorch_tanh",
    "query_pre_attn_scalar": 256, "sliding_window": 4096,
}  # fmt: skip
LLAMA = {
    "model_type": "llama", "hidden_size": 4096, "num_attention_heads": 32, "num_key_value_heads": 8, "num_hidden_layers": 32,
    "intermediate_size": 14336, "vocab_size": 128256, "max_position_embeddings": 131072, "rope_theta": 500000.0, "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
}  # fmt: skip
GPT2 = {"model_type": "gpt2", "n_embd": 768, "n_head": 12, "n_layer": 12, "n_positions": 1024, "vocab_size": 50257}
TINY = {**LLAMA, "hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 3, "intermediate_size": 128,
        "vocab_size": 500, "max_position_embeddings": 512}  # fmt: skip
MODELS = {"gpt2-small": GPT2, "gemma-2-2b": GEMMA, "llama-3.1-8b": LLAMA, "tiny": TINY}
CONFIGURATIONS = ("plain", "one vector", "all layers", "all different")
SAMPLING = {"temperature": 0.0, "top_k": 0, "top_p": 1.0, "frequency_penalty": 0.0, "presence_penalty": 0.0, "seed": 1, "logprobs": 0}


def random_weights(spec: Spec, device: torch.device, dtype: torch.dtype) -> Weights:
    def matrix(*shape: int) -> torch.Tensor:
        return torch.randn(shape, device=device, dtype=dtype).mul_(0.02)

    def norm(size: int) -> Norm:
        zero = torch.zeros(size, device=device)
        return Norm(zero + 1, None if spec.rms else zero)

    width, inner, heads = spec.width, spec.inner, spec.heads + 2 * spec.kv_heads

    def layer() -> Layer:
        return Layer(
            before_attention=norm(width), before_mlp=norm(width),
            qkv=Linear(matrix(heads * spec.head_dim, width)), out=Linear(matrix(width, spec.heads * spec.head_dim)),
            up=Linear(matrix(inner * (2 if spec.gated else 1), width)), down=Linear(matrix(width, inner)),
            query_norm=norm(spec.head_dim) if spec.head_norm else None, key_norm=norm(spec.head_dim) if spec.head_norm else None,
            after_attention=norm(width) if spec.sandwich else None, after_mlp=norm(width) if spec.sandwich else None,
        )  # fmt: skip

    embedding = matrix(spec.vocab, width)
    positions = matrix(spec.context, width).float() if spec.rope is None else None
    return Weights(
        embedding, positions, tuple(layer() for _ in range(spec.layers)), norm(width), embedding if spec.tied else matrix(spec.vocab, width)
    )


def step_bytes(weights: Weights) -> int:
    """Bytes of the weights that every step reads: all matrices; of an embedding that is no head only the rows of the batch."""
    parts = [weights.head] + [each.weight for layer in weights.layers for each in (layer.qkv, layer.out, layer.up, layer.down)]
    return sum(part.nbytes for part in parts)


class Machine:
    def __init__(self, device: str):
        self.device = torch.device(device)
        self.cuda = device == "cuda"

    def wait(self) -> None:
        if self.cuda:
            torch.cuda.synchronize()

    def name(self) -> str:
        if self.cuda:
            return f"{torch.cuda.get_device_name()}, torch {torch.__version__}, CUDA {torch.version.cuda}"
        return f"CPU, {torch.get_num_threads()} threads, torch {torch.__version__}"

    def bandwidth(self) -> float:
        """Bytes per second of reading a large buffer: the median of ten sums."""
        values = torch.ones(2**28 if self.cuda else 2**25, device=self.device)
        times = []
        for _ in range(12):
            self.wait()
            began = time.perf_counter()
            values.sum()
            self.wait()
            times.append(time.perf_counter() - began)
        return values.nbytes / statistics.median(times[2:])


def edits_of(configuration: str, stream: int, spec: Spec, vectors: torch.Tensor) -> list[PlacedEdit]:
    middle, every = spec.layers // 2, range(spec.layers + 1)
    match configuration:
        case "one vector":
            return [PlacedEdit(Edit("SIMPLE_ADDITIVE", vectors[0], 2.0), middle)]
        case "all layers":
            return [PlacedEdit(Edit("SIMPLE_ADDITIVE", vectors[b % len(vectors)], 0.5), b) for b in every]
        case "all different":
            own, other = vectors[stream % len(vectors)], vectors[(stream + 7) % len(vectors)]
            at = stream % (spec.layers + 1)
            return [
                [PlacedEdit(Edit("SIMPLE_ADDITIVE", own, 1.0 + stream), at), PlacedEdit(Edit("ABLATE", other), at)],
                [PlacedEdit(Edit("ABLATE", own), b) for b in every],
                [PlacedEdit(Edit("PROJECTION_CAP", own, -1.0 - stream), at), PlacedEdit(Edit("PROJECTION_CLAMP", other, 0.0, -1.0, 1.0), at)],
                [PlacedEdit(Edit("ORTHOGONAL_DECOMP", own, -2.0), at, schedule=("decay", 64))],
            ][stream % 4]
    return []


class Bench:
    def __init__(self, model: str, machine: Machine, arguments: argparse.Namespace):
        self.machine, self.arguments, self.model = machine, arguments, model
        self.spec = read_spec(MODELS[model])
        self.dtype = torch.bfloat16 if machine.cuda else torch.float32
        self.weights = random_weights(self.spec, machine.device, self.dtype)
        self.length = arguments.prompt + arguments.new
        self.vectors = torch.randn(64, self.spec.width)
        self.prompts = torch.randint(0, self.spec.vocab, (64, arguments.prompt)).tolist()
        slots = max(arguments.streams)
        self.decoder = Decoder(self.spec, self.weights, slots + 1, min(self.spec.context, self.length))
        self.said: list[tuple[float, str, int]] = []
        self.fast = new_fast_step(self.decoder, print) if machine.cuda else None
        self.loop = Loop(self.decoder, Steps(self.decoder, slots, machine.cuda, self.fast), self.hear, behind=int(machine.cuda))

    def hear(self, event: str, fields: dict[str, Any], _: bytes = b"") -> None:
        if event == "tokens":
            self.said.append((time.perf_counter(), fields["id"], len(fields["tokens"])))

    def run(self, streams: int, configuration: str, new: int) -> tuple[float, float]:
        """Tokens per second of decode, and seconds to the first token of the last stream."""
        self.said.clear()
        for stream in range(streams):
            edits = edits_of(configuration, stream, self.spec, self.vectors)
            row = Row(self.prompts[stream], RowEdits(edits, self.arguments.prompt, self.spec.width))
            self.loop.submit(Generation(str(stream), [row], SAMPLING, new, frozenset()))
        began = time.perf_counter()
        while self.loop.busy:
            self.loop.turn()
        for stream in range(streams):
            self.loop.drop(str(stream))
        # The streams decode together once the last one has its first token.
        firsts: dict[str, float] = {}
        for at, id, _ in self.said:
            firsts.setdefault(id, at)
        start, end = max(firsts.values()), self.said[-1][0]
        total = sum(count for *_, count in self.said)
        assert total == streams * new, f"{total} tokens instead of {streams * new}"
        return sum(count for at, _, count in self.said if at > start) / (end - start), start - began


def table(rows: list[list[str]]) -> None:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip(), flush=True)


def bench_model(model: str, machine: Machine, arguments: argparse.Namespace, bandwidth: float, left: Callable[[], float]) -> None:
    bench = Bench(model, machine, arguments)
    size = step_bytes(bench.weights)
    print(f"\n{model}: {size / 1e9:.2f} GB of weights a step, {str(bench.dtype).removeprefix('torch.')}", flush=True)
    rows = [["streams", "configuration", "tok/s", "runs", "of plain", "of bandwidth", "first token ms"]]
    plain: dict[int, float] = {}
    for streams in arguments.streams:
        for configuration in CONFIGURATIONS:
            if left() < 0:
                print(f"  left out for lack of time: {streams} streams, {configuration}")
                continue
            bench.run(streams, configuration, min(8, arguments.new))  # What is made once: graphs, kernels.
            found = [bench.run(streams, configuration, arguments.new) for _ in range(arguments.repeats)]
            rates = [rate for rate, _ in found]
            rate = statistics.median(rates)
            plain.setdefault(streams, rate)
            first = statistics.median(seconds for _, seconds in found)
            rows.append([
                str(streams), configuration, f"{rate:.0f}", f"{min(rates):.0f}-{max(rates):.0f}", f"{rate / plain[streams]:.3f}",
                f"{rate / streams * size / bandwidth:.1%}", f"{1000 * first:.0f}",
            ])  # fmt: skip
    table(rows)
    baselines(bench, machine, arguments, plain, left)
    if arguments.start:
        start_time(bench, machine)


def baselines(bench: Bench, machine: Machine, arguments: argparse.Namespace, plain: dict[int, float], left: Callable[[], float]) -> None:
    try:
        import transformers
    except ImportError:
        print("  transformers is not installed: no baselines (pip install transformers)")
        return
    config = transformers.AutoConfig.for_model(**MODELS[bench.model])
    with torch.device(machine.device):
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=bench.dtype).eval()
    layers = next(module for module in model.modules() if isinstance(module, torch.nn.ModuleList))
    vector = bench.vectors[0].to(machine.device, bench.dtype)

    def hook(_: Any, __: Any, output: Any) -> Any:
        return (output[0] + 2 * vector, *output[1:]) if isinstance(output, tuple) else output + 2 * vector

    rows = [["streams", "baseline", "tok/s", "ours"]]
    for streams in arguments.streams:
        ids = torch.tensor(bench.prompts[:streams], device=machine.device)
        for name, cache in (("transformers, eager with a hook", None), ("transformers, static cache with a hook", "static")):
            if left() < 0:
                continue
            handle = layers[len(layers) // 2].register_forward_hook(hook)
            rates = []
            try:
                for _ in range(2):
                    times = []
                    for new in (1, arguments.new):
                        machine.wait()
                        began = time.perf_counter()
                        with torch.inference_mode():
                            model.generate(
                                ids, attention_mask=torch.ones_like(ids), do_sample=False, min_new_tokens=new, max_new_tokens=new,
                                cache_implementation=cache, pad_token_id=0, disable_compile=True,
                            )  # fmt: skip
                        machine.wait()
                        times.append(time.perf_counter() - began)
                    rates.append(streams * (arguments.new - 1) / (times[1] - times[0]))
                rows.append([str(streams), name, f"{rates[-1]:.0f}", f"{plain.get(streams, 0) / rates[-1]:.1f}x"])
            except Exception as error:
                rows.append([str(streams), name, f"failed: {type(error).__name__}", ""])
            finally:
                handle.remove()
    table(rows)
    del model


def start_time(bench: Bench, machine: Machine) -> None:
    """Seconds from the start of a process to its first token, the model's files on a local disk."""
    if bench.spec.family != "gemma2" and bench.model != "tiny":
        return
    with tempfile.TemporaryDirectory() as folder:
        write_checkpoint(bench, Path(folder))
        began = time.perf_counter()
        device = "cuda" if machine.cuda else "cpu"
        with subprocess.Popen([sys.executable, "-m", "gpu.worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:

            def send(fields: dict[str, Any]) -> None:
                text = json.dumps(fields).encode()
                process.stdin.write(LENGTHS.pack(len(text), 0) + text)  # type: ignore[union-attr]
                process.stdin.flush()  # type: ignore[union-attr]

            dtype = str(bench.dtype).removeprefix("torch.")
            send({"directory": folder, "device": device, "dtype": dtype, "slots": 8, "context": bench.decoder.context, "threads": 0, "kernels": True})
            ready = receive(process.stdout)  # type: ignore[arg-type]
            row = {"prompt": 0, "generated_from": len(bench.prompts[0]), "untouched": [], "edits": []}
            send({"do": "generate", "id": "a", "prompts": [bench.prompts[0]], "rows": [row], "sampling": SAMPLING, "max_tokens": 1, "eos": [], "base": None})
            receive(process.stdout)  # type: ignore[arg-type]
            seconds = time.perf_counter() - began
            process.stdin.close()  # type: ignore[union-attr]
        phases = {} if ready is None else ready[0].get("phases", ready[0])
        print(f"  first token {seconds:.2f} s after the start of the process; phases over at {json.dumps(phases)} (files just written: cached)")


def write_checkpoint(bench: Bench, folder: Path) -> None:
    """The model as a Hugging Face directory (the Llama families)."""
    spec, weights = bench.spec, bench.weights
    tensors = {"model.embed_tokens.weight": weights.embedding, "model.norm.weight": weights.last.weight}
    if not spec.tied:
        tensors["lm_head.weight"] = weights.head
    q, kv = spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim
    for i, layer in enumerate(weights.layers):
        at = f"model.layers.{i}"
        for name, part in zip("qkv", layer.qkv.weight.split([q, kv, kv]), strict=True):
            tensors[f"{at}.self_attn.{name}_proj.weight"] = part.contiguous()
        gate, up = layer.up.weight.chunk(2)
        norms = {
            "input_layernorm": layer.before_attention, "post_attention_layernorm": layer.after_attention or layer.before_mlp,
            **({"pre_feedforward_layernorm": layer.before_mlp, "post_feedforward_layernorm": layer.after_mlp} if spec.sandwich else {}),
        }  # fmt: skip
        tensors |= {
            f"{at}.self_attn.o_proj.weight": layer.out.weight, f"{at}.mlp.gate_proj.weight": gate.contiguous(),
            f"{at}.mlp.up_proj.weight": up.contiguous(), f"{at}.mlp.down_proj.weight": layer.down.weight,
            **{f"{at}.{name}.weight": norm.weight for name, norm in norms.items() if norm is not None},
        }  # fmt: skip
    save_file({name: tensor.cpu() for name, tensor in tensors.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(MODELS[bench.model]))


def main() -> None:
    began = time.perf_counter()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="gemma-2-2b,gpt2-small,llama-3.1-8b", help="of " + ", ".join(MODELS))
    parser.add_argument("--streams", default="1,8,64", type=lambda text: [int(part) for part in text.split(",")])
    parser.add_argument("--prompt", default=512, type=int)
    parser.add_argument("--new", default=128, type=int)
    parser.add_argument("--repeats", default=3, type=int)
    parser.add_argument("--seconds", default=540.0, type=float, help="nothing is begun after so long")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--no-start", dest="start", action="store_false", help="leave out the start of a process")
    arguments = parser.parse_args()
    machine = Machine(arguments.device)
    bandwidth = machine.bandwidth()
    print(f"{machine.name()}\nmeasured bandwidth {bandwidth / 1e9:.0f} GB/s; prompt {arguments.prompt}, {arguments.new} new, "
          f"median of {arguments.repeats} runs", flush=True)  # fmt: skip
    for model in arguments.models.split(","):
        if model not in MODELS:
            parser.error(f"there is no model {model}: {', '.join(MODELS)} are there")
        bench_model(model, machine, arguments, bandwidth, lambda: arguments.seconds - (time.perf_counter() - began))
        if machine.cuda:
            torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
