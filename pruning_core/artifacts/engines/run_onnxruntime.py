"""Runs a graph in ONNX Runtime. Started by `prover`; see `running`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent))

import running


def describe(request: dict[str, Any]) -> dict[str, Any]:
    """Import ONNX Runtime."""
    return {"version": importlib.import_module("onnxruntime").__version__, "dtype": request["dtype"]}


class Model(running.Graph):
    """A session of ONNX Runtime, on the CPU."""

    def __init__(self, path: str, request: dict[str, Any]) -> None:
        runtime: Any = importlib.import_module("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = request["threads"]
        options.log_severity_level = 3
        self._session = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.takes = {entry.name: entry.type for entry in self._session.get_inputs()}

    def prepare(self, inputs: dict[str, Any]) -> Callable[[], Any]:
        """See `running.Passes`."""
        fed = self.fed(inputs)
        return lambda: self._session.run(None, fed)


if __name__ == "__main__":
    running.run_script(describe, Model)
