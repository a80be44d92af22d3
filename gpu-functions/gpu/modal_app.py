"""The GPU engine on Modal: images, machines, weights and addresses. Infrastructure only: the engine is main.ts and worker.py.

  modal secret create tiller ENGINE_TOKEN=... [HF_TOKEN=...]
  modal run gpu-functions/gpu/modal_app.py::download --model gemma-2-2b
  npm run gpu -- deploy

One class for each model of models.json, each with its GPU, scaled to zero. Its address (`web`) speaks the engine protocol behind Modal's
proxy auth. `ready` and `generate` are the same for Modal's own clients. `run` generates for a caller that does not wait: it is spawned,
so that its container lives as long as the generation, and reports to the caller's address.
"""

import json
import os
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import modal

FOLDER = "/app"
MODELS = "/models"
PORT, SPAWN_PORT = 8788, 8789
# Only where the file is deployed from: in a container it lies alone.
ROOT = Path(__file__).resolve().parents[2] if modal.is_local() else Path(FOLDER)
TABLE: dict[str, dict[str, Any]] = json.loads((ROOT / "gpu-functions" / "gpu" / "models.json").read_text())
START_SECONDS = 900
# Longer than any generation; jobs are never answered by the connection that asked for them.
RUN_SECONDS = 24 * 3600

app = modal.App("tiller")
weights = modal.Volume.from_name("tiller-models", create_if_missing=True)
# Of every generation that was spawned: the id of Modal's call, by its own.
calls = modal.Dict.from_name("tiller-calls", create_if_missing=True)
secret = modal.Secret.from_name("tiller", required_keys=["ENGINE_TOKEN"])

image = (
    modal.Image.from_registry("node:24.21.0-bookworm-slim", add_python="3.11")
    .apt_install("gcc", "libc6-dev")
    .uv_pip_install("torch==2.13.0", "numpy==2.4.6", "safetensors==0.8.0")
    .workdir(FOLDER)
    .add_local_file(ROOT / "package.json", f"{FOLDER}/package.json", copy=True)
    .add_local_file(ROOT / "package-lock.json", f"{FOLDER}/package-lock.json", copy=True)
    # Locked versions; nothing of what the engine needs has an install script.
    .run_commands("npm ci --omit=dev --ignore-scripts --no-audit --no-fund")
    # Compiled kernels stay in the Volume: one container compiles them for all later ones.
    .env({"TILLER_MODELS": MODELS, "PYTHONUNBUFFERED": "1", "TRITON_CACHE_DIR": f"{MODELS}/.triton", "HF_HUB_DISABLE_TELEMETRY": "1"})
    .add_local_dir(ROOT / "shared", f"{FOLDER}/shared", ignore=["**/*.test.ts"])
    .add_local_dir(ROOT / "scripts", f"{FOLDER}/scripts", ignore=["**/*.test.ts"])
    .add_local_dir(
        ROOT / "gpu-functions",
        f"{FOLDER}/gpu-functions",
        ignore=["fixtures", "train", "bundled", "conformance", "**/*.test.ts", "gpu/tests", "**/__pycache__"],
    )
)


def ask(path: str, body: dict[str, Any] | None = None, timeout: float | None = None) -> dict[str, Any]:
    """A call of this container's engine. @raises RuntimeError with the engine's own sentence."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{PORT}{path}",
        None if body is None else json.dumps(body).encode(),
        {"authorization": f"Bearer {os.environ['ENGINE_TOKEN']}", "content-type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        told = json.loads(error.read() or b"{}").get("error", {})
        raise RuntimeError(f"{told.get('code', error.code)}: {told.get('message', error.reason)}") from None


def spawner(spawn: Callable[[dict[str, Any]], str]) -> type[BaseHTTPRequestHandler]:
    """
    How the engine of this container hands a generation to a call of its own, and asks for it (cpu/callbacks.ts, remoteCallbacks).

    @param spawn begins a call and gives its id.
    """

    class Spawner(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["content-length"])))
            before = calls.get(request["id"])
            # The same request again, of a caller that did not hear us: a call that still runs is left alone.
            if before is None or not pending(before):
                calls[request["id"]] = spawn(request)
            self.answer(202, {})

        def do_GET(self) -> None:
            call = calls.get(self.path.strip("/"))
            if call is not None and pending(call):
                return self.answer(200, {"tokens": []})
            report = None if call is None else result(call)
            self.answer(404 if report is None else 200, report or {})

        def answer(self, status: int, body: dict[str, Any]) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            """Each request is logged by the engine already."""

    return Spawner


def pending(call: str) -> bool:
    try:
        modal.FunctionCall.from_id(call).get(timeout=0)
    except TimeoutError:
        return True
    except Exception:
        return False
    return False


def result(call: str) -> dict[str, Any] | None:
    try:
        return modal.FunctionCall.from_id(call).get(timeout=0)
    except Exception:
        return None


class Served:
    """What every model's class has; `model`, `dtype` and `cache_mb` are its own."""

    model: str
    dtype: str
    cache_mb: int

    @modal.enter()
    def start(self) -> None:
        began = time.perf_counter()
        name = type(self).__name__

        def spawn(request: dict[str, Any]) -> str:
            return modal.Cls.from_name("tiller", name)().run.spawn(request).object_id

        threading.Thread(target=ThreadingHTTPServer(("127.0.0.1", SPAWN_PORT), spawner(spawn)).serve_forever, daemon=True).start()
        settings = {
            "MODELS": f"{MODELS}/{self.model}", "DEVICE": "cuda", "DTYPE": self.dtype, "HOST": "0.0.0.0", "PORT": str(PORT),
            "CACHE_MB": str(self.cache_mb), "SPAWN_URL": f"http://127.0.0.1:{SPAWN_PORT}",
        }  # fmt: skip
        self.engine = subprocess.Popen(["node", "gpu-functions/gpu/main.ts"], cwd=FOLDER, env={**os.environ, **settings})
        while True:
            if self.engine.poll() is not None:
                raise RuntimeError(f"the engine of {self.model} ended while it started: its last lines say why")
            try:
                self.phases = ask("/health", timeout=5)["phases"][self.model]
                break
            except OSError:
                time.sleep(0.05)
        self.phases["container_ms"] = 1000 * (time.perf_counter() - began)
        print(json.dumps({"model": self.model, "phases": self.phases}))

    @modal.web_server(PORT, startup_timeout=START_SECONDS, requires_proxy_auth=True)
    def web(self) -> None:
        """The engine listens since `start`."""

    @modal.method()
    def ready(self) -> dict[str, Any]:
        """What /health says, with the time until the whole container was ready."""
        return {**ask("/health"), "phases": {self.model: self.phases}}

    @modal.method()
    def generate(self, request: dict[str, Any]) -> dict[str, Any]:
        return ask("/generate", request)

    @modal.method()
    def run(self, request: dict[str, Any]) -> dict[str, Any]:
        """Runs a generation and tells its `callback_url`. @returns the whole report, for whoever asks later."""
        ask("/run", request)
        return ask(f"/generations/{request['id']}")

    @modal.exit()
    def stop(self) -> None:
        self.engine.terminate()


def serve(model: str, row: dict[str, Any]) -> Any:
    """The class of a row of models.json."""
    name = row["class"]
    own = type(name, (Served,), {"model": model, "dtype": row["dtype"], "cache_mb": row["cache_mb"], "__module__": __name__, "__doc__": f"{model} on {row['gpu']}."})
    options = {
        "image": image, "gpu": row["gpu"], "volumes": {MODELS: weights}, "secrets": [secret],
        "min_containers": row.get("min_containers", 0), "max_containers": row.get("max_containers", 2),
        "scaledown_window": row.get("scaledown_window", 300), "timeout": RUN_SECONDS, "startup_timeout": START_SECONDS,
    }  # fmt: skip
    return app.cls(**options)(modal.concurrent(max_inputs=64)(own))


# GPU_MODELS: the models that are deployed, where not all are. In a container every class must be there.
wanted = os.environ.get("GPU_MODELS") if modal.is_local() else None
for id_, row_ in TABLE.items():
    if wanted and id_ not in wanted.split(","):
        continue
    globals()[row_["class"]] = serve(id_, row_)


@app.function(image=image, volumes={MODELS: weights}, secrets=[secret], timeout=4 * 3600)
def download(model: str) -> None:
    """Fetches a model and its autoencoders into the Volume, with progress: `npm run models -- pull`."""
    if model not in TABLE:
        raise ValueError(f"models.json has no {model}; it has {', '.join(TABLE)}")
    subprocess.run(["node", "scripts/models/main.ts", "pull", model], cwd=FOLDER, check=True)
    weights.commit()
