"""The engine's numbers as a process: reads what to do from stdin, writes what came of it to stdout. ../gpu/device.ts is the other end.

A message is two lengths (uint32, little-endian), JSON and bytes. The first that comes is the settings; the answer is `ready`, or `refused`
with a sentence. Then come jobs, in any number, and what ends them:

  generate, read    run a job (loop.Generation, loop.Reading)
  end, finish, drop a row has its text; all rows have; nobody wants it
  sae, encode       keep an autoencoder's matrices; find the activations of residual streams

  tokens, part      what a job has found so far
  finished          its receipts; failed: why there will be none
  encoded           activations
"""

import json
import queue
import struct
import sys
import threading
import time
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from .readahead import read_ahead

STARTED = time.perf_counter()
LENGTHS = struct.Struct("<II")
Message = tuple[dict[str, Any], bytes]


def receive(stream: BinaryIO) -> Message | None:
    """The next message; None when the other end is gone."""
    head = stream.read(LENGTHS.size)
    if len(head) < LENGTHS.size:
        return None
    text, binary = LENGTHS.unpack(head)
    return json.loads(stream.read(text)), stream.read(binary)


class Worker:
    def __init__(self, settings: dict[str, Any], out: BinaryIO):
        import torch

        from .decoder import Decoder
        from .fast import new_fast_step
        from .loop import Loop
        from .step import Steps

        self.out, self.torch = out, torch
        self.phases = {"import_ms": self.since_start()}
        if settings["threads"]:
            torch.set_num_threads(settings["threads"])
        device, dtype = settings["device"], getattr(torch, settings["dtype"])
        if device == "cuda":
            # Partial sums of a product stay float32.
            torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
            torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
            torch.zeros(1, device=device)
            self.phases["device_ms"] = self.since_start()
        slots = settings["slots"]
        self.decoder = Decoder.from_directory(Path(settings["directory"]), device, dtype, slots + 1, settings["context"])
        self.phases["weights_ms"] = self.since_start()
        fast = new_fast_step(self.decoder, lambda line: print(line, file=sys.stderr, flush=True)) if settings["kernels"] and device == "cuda" else None
        self.phases["kernels_ms"] = self.since_start()
        self.loop = Loop(self.decoder, Steps(self.decoder, slots, device == "cuda", fast), self.tell, behind=int(device == "cuda"))
        self.test_hooks()
        self.phases["self_test_ms"] = self.since_start()
        self.saes: dict[str, Any] = {}

    @staticmethod
    def since_start() -> float:
        return 1000 * (time.perf_counter() - STARTED)

    def test_hooks(self) -> None:
        """A sentinel edit at every boundary must change the logits: a model whose hooks are not connected is never served."""
        from .edits import Edit, compile_point

        torch, width = self.torch, self.decoder.spec.width
        zero = torch.zeros(1, 1, dtype=torch.int64, device=self.loop.device)
        slot = self.loop.steps.spare
        at = torch.tensor([slot], device=self.loop.device)
        direction = torch.ones(width)
        direction[1::2] = -0.5

        def logits() -> Any:
            return self.decoder.forward(zero, zero, at, 1)

        plain = logits()
        if not plain.isfinite().all():
            raise ValueError("it computes logits that are not finite: its weights are damaged")
        for boundary in range(self.decoder.spec.layers + 1):
            self.decoder.tables.set(slot, {boundary: compile_point([Edit("SIMPLE_ADDITIVE", direction, 10.0)], width)})
            if self.torch.equal(logits(), plain):
                raise ValueError(f"an edit at boundary {boundary} of the residual stream changes nothing")
        self.decoder.tables.set(slot, {})

    def tell(self, event: str, fields: dict[str, Any], binary: bytes = b"") -> None:
        text = json.dumps({"event": event, **fields}).encode()
        self.out.write(LENGTHS.pack(len(text), len(binary)) + text + binary)
        self.out.flush()

    def serve(self, inbox: "queue.SimpleQueue[Message | None]") -> None:
        """Until the other end is gone."""
        while True:
            # Work is waited for; while there is some, what has come is taken between two steps.
            while not (self.loop.busy and inbox.empty()):
                message = inbox.get()
                if message is None:
                    return
                self.take(*message)
            self.loop.turn()

    def take(self, fields: dict[str, Any], binary: bytes) -> None:
        match fields["do"]:
            case "generate":
                self.loop.submit(self.generation(fields, binary))
            case "read":
                self.loop.submit(self.reading(fields, binary))
            case "end":
                self.loop.end(fields["id"], fields["row"])
            case "finish":
                self.loop.finish(fields["id"], fields["tokens"])
            case "drop":
                self.loop.drop(fields["id"])
            case "sae":
                self.keep_sae(fields, binary)
            case "forget_sae":
                self.saes.pop(fields["key"], None)
            case "encode":
                self.encode(fields, binary)

    def rows(self, fields: dict[str, Any], binary: bytes) -> list[Any]:
        from .edits import Edit, Latent
        from .loop import Row
        from .row import PlacedEdit, RowEdits

        values = self.torch.from_numpy(np.frombuffer(binary, dtype="<f4").copy())
        width = self.decoder.spec.width
        prompts = fields["prompts"]

        def vector(at: int) -> Any:
            return values[at * width : (at + 1) * width]

        def placed(e: dict[str, Any]) -> PlacedEdit:
            latent = e.get("latent")
            edit = Edit(
                e["method"], vector(e["direction"]), e["strength"], e.get("min"), e.get("max"),
                None if latent is None else Latent(vector(latent["read"]), latent["zero"], latent["edge"]),
            )  # fmt: skip
            schedule = e["schedule"] if isinstance(e["schedule"], str) else (e["schedule"]["kind"], e["schedule"]["tokens"])
            return PlacedEdit(edit, e["boundary"], e["positions"], schedule)

        return [
            Row(
                prompts[row["prompt"]],
                RowEdits([placed(e) for e in row["edits"]], row["generated_from"], width, frozenset(row["untouched"])),
                row.get("known", []),
            )
            for row in fields["rows"]
        ]

    def generation(self, fields: dict[str, Any], binary: bytes) -> Any:
        from .loop import Generation

        return Generation(
            fields["id"], self.rows(fields, binary), fields["sampling"], fields["max_tokens"], frozenset(fields["eos"]), fields["base"]
        )

    def reading(self, fields: dict[str, Any], binary: bytes) -> Any:
        from .loop import Reading

        return Reading(fields["id"], self.rows(fields, binary), fields["targets"], fields["start"], fields["top"], fields["boundaries"])

    def keep_sae(self, fields: dict[str, Any], binary: bytes) -> None:
        from .sae import Encoder

        tensors, at = {}, 0
        values = np.frombuffer(binary, dtype="<f4")
        for name, shape in fields["tensors"].items():
            size = int(np.prod(shape))
            tensors[name] = self.torch.from_numpy(values[at : at + size].reshape(shape).copy()).to(self.loop.device)
            at += size
        weight = tensors.pop("encoder")
        self.saes[fields["key"]] = Encoder(weight.T if fields["latents_first"] else weight, tensors, fields["settings"])

    def encode(self, fields: dict[str, Any], binary: bytes) -> None:
        encoder = self.saes[fields["key"]]
        streams = self.torch.from_numpy(np.frombuffer(binary, dtype="<f4").copy()).view(-1, self.decoder.spec.width)
        found = encoder.encode(streams.to(self.loop.device))
        values, ids = found.topk(min(fields["top"], found.shape[1]), -1)
        parts = [found.float(), found.amax(0).float(), values.float(), ids.to(self.torch.int32)]
        self.tell("encoded", {"id": fields["id"], "top": values.shape[1]}, b"".join(part.cpu().numpy().tobytes() for part in parts))


def main() -> None:
    # What libraries print must not come between the messages.
    out = open(1, "wb", closefd=False)  # noqa: SIM115
    sys.stdout = sys.stderr
    source = sys.stdin.buffer
    first = receive(source)
    if first is None:
        return
    # Before PyTorch is imported, which takes as long as reading a small model.
    read_ahead(Path(first[0]["directory"]))
    inbox: queue.SimpleQueue[Message | None] = queue.SimpleQueue()

    def read_all() -> None:
        while (message := receive(source)) is not None:
            inbox.put(message)
        inbox.put(None)

    try:
        worker = Worker(first[0], out)
    except Exception as error:
        text = json.dumps({"event": "refused", "reason": f"{type(error).__name__}: {error}"}).encode()
        out.write(LENGTHS.pack(len(text), 0) + text)
        out.flush()
        return
    threading.Thread(target=read_all, daemon=True).start()
    worker.tell("ready", {"phases": worker.phases, "device": describe(worker)})
    worker.serve(inbox)


def describe(worker: Worker) -> str:
    torch, device = worker.torch, worker.loop.device
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, {'fused kernels' if worker.loop.steps.fast else 'no fused kernels'}"
    return f"CPU, {torch.get_num_threads()} threads"


if __name__ == "__main__":
    main()
