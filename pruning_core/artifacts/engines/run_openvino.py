"""Runs a model in OpenVINO. Started by `prover`; see `running`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent))

import running


def describe(request: dict[str, Any]) -> dict[str, Any]:
    """Import OpenVINO."""
    return {"version": importlib.import_module("openvino").__version__.partition("-")[0], "dtype": request["dtype"]}


class Model(running.Graph):
    """A compiled model of OpenVINO, on the CPU."""

    def __init__(self, path: str, request: dict[str, Any]) -> None:
        openvino: Any = importlib.import_module("openvino")
        file = Path(path)
        file = next(iter(sorted(file.glob("*.xml"))), file) if file.is_dir() else file
        options = {"INFERENCE_NUM_THREADS": request["threads"], "INFERENCE_PRECISION_HINT": "f32"}
        self._model = openvino.Core().compile_model(str(file), "CPU", options)
        self.takes = {entry.get_any_name(): str(entry.get_element_type()) for entry in self._model.inputs}
        self._outputs = list(self._model.outputs)

    def prepare(self, inputs: dict[str, Any]) -> Callable[[], Any]:
        """See `running.Passes`."""
        fed = self.fed(inputs)

        def run() -> list[Any]:
            result = self._model(fed)
            return [result[output] for output in self._outputs]

        return run


if __name__ == "__main__":
    running.run_script(describe, Model)
