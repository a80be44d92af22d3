"""Writes fixtures.json: small files of vectors as the real libraries write them, in base64, and what they hold.

Needs numpy, torch, safetensors and gguf; `python fixtures.py` beside the JSON file.
"""

import base64
import io
import json
import os
import tempfile
from pathlib import Path

import gguf
import numpy as np
import torch
from safetensors.torch import save

values = np.array([0.1, -2.5, 3e-5, 1024.0, -0.0, 7.0])
rows = np.stack([values, values[::-1] * 3])
files: dict[str, dict] = {}


def keep(name: str, content: bytes, vectors: list) -> None:
    files[name] = {
        "base64": base64.b64encode(content).decode(),
        "vectors": [{"name": n, "values": [float(v) for v in x], **place} for n, x, place in vectors],
    }


def npy(array: np.ndarray, version=None) -> bytes:
    out = io.BytesIO()
    np.lib.format.write_array(out, array, version=version, allow_pickle=True)
    return out.getvalue()


for kind in ["<f8", "<f4", "<f2", ">f8", ">f4", "<i4", "<i8"]:
    array = values.astype(kind)
    keep(f"{kind[1:]}{'-big' if kind[0] == '>' else ''}.npy", npy(array), [("vector", array, {})])
for version in [(2, 0), (3, 0)]:
    keep(f"version-{version[0]}.npy", npy(values, version), [("vector", values, {})])
keep("row.npy", npy(values[None, :]), [("vector", values, {})])
keep("column-fortran.npy", npy(np.asfortranarray(values[:, None])), [("vector", values, {})])
keep("rows.npy", npy(rows), [("row 0", rows[0], {}), ("row 1", rows[1], {})])
keep("rows-fortran.npy", npy(np.asfortranarray(rows)), [])
keep("objects.npy", npy(np.array([1, "a"], dtype=object)), [])
keep("complex.npy", npy(values.astype("<c16")), [])
out = io.BytesIO()
np.savez(out, values=values)
keep("archive.npz", out.getvalue(), [])
out = io.BytesIO()
np.savez_compressed(out, values=values)
keep("compressed.npz", out.getvalue(), [])

tensor = torch.tensor(values)
kinds = {"f64": torch.float64, "f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
typed = {name: tensor.to(kind) for name, kind in kinds.items()}
keep(
    "types.safetensors",
    save(typed),
    [(name, typed[name].double(), {}) for name in ["f64", "f32", "bf16", "f16"]],
)
keep(
    "placed.safetensors",
    save({"v": tensor[None].contiguous()}, {"layer": "6", "hook_name": "blocks.6.hook_resid_pre"}),
    [("v", tensor, {"layer": 6, "hook": "resid_pre"})],
)
keep(
    "point.safetensors",
    save({"blocks.3.hook_resid_post": tensor}),
    [("blocks.3.hook_resid_post", tensor, {"layer": 3, "hook": "resid_post"})],
)
keep("rows.safetensors", save({"m": torch.tensor(rows)}), [("m[0]", rows[0], {}), ("m[1]", rows[1], {})])
keep("integers.safetensors", save({"v": tensor.long()}), [])


def torch_file(value) -> bytes:
    out = io.BytesIO()
    torch.save(value, out)
    return out.getvalue()


for name, each in typed.items():
    keep(f"{name}.pt", torch_file(each), [("vector", each.double(), {})])
keep("integers.pt", torch_file(tensor.long()), [("vector", tensor.long(), {})])
keep("dict.pt", torch_file({"a": tensor, 12: tensor.float()}), [("a", tensor, {}), ("12", tensor.float(), {})])
keep("list.pt", torch_file([tensor, tensor * 2]), [("tensor 0", tensor, {}), ("tensor 1", tensor * 2, {})])
keep("parameter.pt", torch_file(torch.nn.Parameter(tensor)), [("vector", tensor, {})])
keep("rows.pt", torch_file(torch.tensor(rows)), [("vector[0]", rows[0], {}), ("vector[1]", rows[1], {})])
keep("slice.pt", torch_file(torch.tensor(rows)[1]), [("vector", rows[1], {})])
keep("strided.pt", torch_file(torch.tensor(rows)[:, 0]), [])
keep("layer-beside.pt", torch_file({"vector": tensor, "layer": 5}), [])
wide = torch.arange(64.0, dtype=torch.float64)
keep("shared.pt", torch_file({str(i): wide for i in range(20)}), [])


class Evil:
    def __reduce__(self):
        return os.system, ("echo executed",)


keep("runs-code.pt", torch_file({"a": tensor, "b": Evil()}), [])
out = io.BytesIO()
torch.save(tensor, out, _use_new_zipfile_serialization=False)
keep("legacy.pt", out.getvalue(), [])
state = torch.nn.Linear(2, 1).state_dict()
state["weight"], state["bias"] = torch.tensor([[1.0, 2.0]]), torch.tensor([3.0])
keep("state.pt", torch_file(state), [("weight", [1, 2], {}), ("bias", [3], {})])


def control_vector(directions: dict[int, np.ndarray], more=lambda writer: None, architecture="controlvector") -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.gguf"
        writer = gguf.GGUFWriter(path, architecture)
        writer.add_string("controlvector.model_hint", "llama")
        writer.add_uint32("controlvector.layer_count", len(directions))
        more(writer)
        for layer, each in directions.items():
            writer.add_tensor(f"direction.{layer}", each)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path.read_bytes()


def placed(layer: int, each: np.ndarray):
    return f"direction.{layer}", each, {"layer": layer, "hook": "resid_post", "modelHint": "llama", "layerCount": 2}


def every_type(writer: gguf.GGUFWriter) -> None:
    for kind in ["uint8", "int8", "uint16", "int16", "int32", "float32", "uint64", "int64", "float64"]:
        getattr(writer, f"add_{kind}")(f"x.{kind}", 7)
    writer.add_bool("x.bool", True)
    writer.add_array("x.words", ["one", "", "three"])
    writer.add_array("x.numbers", [1, 2, 3])
    writer.add_array("x.floats", [1.5, 2.5])
    writer.add_array("x.nested", [[1, 2], [3]])
    writer.add_custom_alignment(64)


single, half = rows.astype("f4"), rows.astype("f2")
keep("from-0.gguf", control_vector({0: single[0], 1: single[1]}), [placed(0, single[0]), placed(1, single[1])])
keep("from-1.gguf", control_vector({1: single[0], 2: single[1]}), [placed(1, single[0]), placed(2, single[1])])
keep("half.gguf", control_vector({11: half[0], 4: half[1]}), [placed(4, half[1]), placed(11, half[0])])
keep("double.gguf", control_vector({1: rows[0], 2: rows[1]}, every_type), [placed(1, rows[0]), placed(2, rows[1])])
keep("a-model.gguf", control_vector({1: single[0]}, architecture="llama"), [])

Path(__file__).with_name("fixtures.json").write_text(json.dumps(files, indent=1) + "\n")
