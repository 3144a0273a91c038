"""Runs a checkpoint in MLX. Started by `prover`; see `running`."""

from __future__ import annotations

import importlib
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent))

import running


def describe(request: dict[str, Any]) -> dict[str, Any]:
    """Import MLX."""
    importlib.import_module("mlx_lm")
    return {"version": version("mlx-lm"), "dtype": request["dtype"]}


class Model:
    """A model of mlx-lm."""

    def __init__(self, path: str, request: dict[str, Any]) -> None:
        self._mx: Any = importlib.import_module("mlx.core")
        utils: Any = importlib.import_module("mlx_lm.utils")
        self._cache: Any = importlib.import_module("mlx_lm.models.cache")
        self._model, _config = utils.load_model(Path(path), lazy=False)
        self._model.set_dtype(getattr(self._mx, request["dtype"]))

    def score(self, tokens: list[int], top: int) -> list[running.Position]:
        """See `running.Decoder`."""
        return running.positions_of(self._rows(tokens, None), tokens, top)

    def generate(self, tokens: list[int], count: int) -> list[int]:
        """See `running.Decoder`."""
        cache = self._cache.make_prompt_cache(self._model)
        return list(running.greedy(lambda fed: self._last(fed, cache), tokens, count))

    def _last(self, tokens: list[int], cache: Any) -> Any:
        return self._rows(tokens, cache)[-1]

    def _rows(self, tokens: list[int], cache: Any) -> Any:
        import numpy as np

        logits = self._model(self._mx.array([tokens]), cache=cache)[0].astype(self._mx.float32)
        return np.array(logits)

    def close(self) -> None:
        """See `running.Decoder`."""
        del self._model


if __name__ == "__main__":
    running.run_script(describe, Model)
