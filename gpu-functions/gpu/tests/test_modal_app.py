"""The app file, as Modal's own package reads it: no account and no network are needed to define an app."""

import json
import threading
import unittest
import urllib.error
import urllib.request
import warnings
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any
from unittest import mock

warnings.simplefilter("ignore")
TABLE = json.loads((Path(__file__).parents[1] / "models.json").read_text())


class App(unittest.TestCase):
    def test_has_a_class_for_every_model_of_the_table(self) -> None:
        from gpu import modal_app

        self.assertEqual(modal_app.TABLE, TABLE)
        for model, row in TABLE.items():
            with self.subTest(model):
                served = getattr(modal_app, row["class"])
                self.assertEqual(served._get_user_cls().model, model)
                self.assertEqual(sorted(served._get_partial_functions()), ["generate", "ready", "run", "start", "stop", "web"])
        self.assertEqual(len({row["class"] for row in TABLE.values()}), len(TABLE))


class Spawning(unittest.TestCase):
    def test_a_generation_is_begun_once_and_found_again(self) -> None:
        from gpu import modal_app

        known: dict[str, str] = {}
        running, results, begun = {"call-1"}, {}, []

        def spawn(request: dict[str, Any]) -> str:
            begun.append(request)
            return f"call-{len(begun)}"

        server = ThreadingHTTPServer(("127.0.0.1", 0), modal_app.spawner(spawn))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}"

        def call(path: str, body: Any = None) -> tuple[int, Any]:
            data = None if body is None else json.dumps(body).encode()
            try:
                with urllib.request.urlopen(urllib.request.Request(address + path, data)) as response:
                    return response.status, json.load(response)
            except urllib.error.HTTPError as error:
                return error.code, json.load(error)

        with (
            mock.patch.object(modal_app, "calls", known),
            mock.patch.object(modal_app, "pending", running.__contains__),
            mock.patch.object(modal_app, "result", results.get),
        ):
            self.assertEqual(call("/", {"id": "job", "n": 1}), (202, {}))
            self.assertEqual(call("/", {"id": "job", "n": 1}), (202, {}))
            self.assertEqual((begun, known), ([{"id": "job", "n": 1}], {"job": "call-1"}))
            self.assertEqual(call("/job"), (200, {"tokens": []}))
            running.clear()
            results["call-1"] = {"tokens": [], "done": {}}
            self.assertEqual(call("/job"), (200, {"tokens": [], "done": {}}))
            self.assertEqual(call("/nobody")[0], 404)
            # One that ended without a report may be begun again.
            self.assertEqual(call("/", {"id": "job", "n": 1}), (202, {}))
            self.assertEqual(known, {"job": "call-2"})
        server.shutdown()


if __name__ == "__main__":
    unittest.main()
