"""Runs a checkpoint in sentence-transformers, without Coppice. Started by `prover`; see `running`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent))

import running


def describe(request: dict[str, Any]) -> dict[str, Any]:
    """Import sentence-transformers, as if Coppice were not installed."""
    sys.modules["pruning_core"] = None  # pyright: ignore[reportArgumentType]
    import sentence_transformers

    running.beside_torch(request["threads"])
    return {"version": sentence_transformers.__version__, "dtype": "float32"}


class Model:
    """A SentenceTransformer. Its inputs are texts, which are cut to the length of their batch."""

    def __init__(self, path: str, request: dict[str, Any]) -> None:
        import torch
        from sentence_transformers import SentenceTransformer

        self._unit: bool = request["unit"]
        self._model: Any = SentenceTransformer(
            path,
            device="cpu",
            local_files_only=True,
            trust_remote_code=request["trust_remote_code"] and path != request["dense"],
            model_kwargs={"dtype": torch.float32},
        )

    def outputs(self, inputs: dict[str, Any]) -> list[Any]:
        """See `running.Passes`."""
        import torch

        found = self.prepare(inputs)()
        return [torch.nn.functional.normalize(found, dim=-1).numpy() if self._unit else found.numpy()]

    def prepare(self, inputs: dict[str, Any]) -> Callable[[], Any]:
        """See `running.Passes`."""
        self._model.max_seq_length = inputs["length"]
        texts, size = inputs["texts"], inputs.get("batch", 1)
        return lambda: self._model.encode(texts, batch_size=size, convert_to_tensor=True, show_progress_bar=False).float().cpu()


if __name__ == "__main__":
    running.run_script(describe, Model)
