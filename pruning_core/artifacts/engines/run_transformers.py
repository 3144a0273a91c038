"""Runs a checkpoint in stock transformers, without Coppice. Started by `prover`; see `running`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent))

import running


def describe(request: dict[str, Any]) -> dict[str, Any]:
    """Import transformers, as if Coppice were not installed."""
    sys.modules["pruning_core"] = None  # pyright: ignore[reportArgumentType]
    import transformers

    running.beside_torch(request["threads"])
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return {"version": transformers.__version__, "dtype": "float32"}


class Model:
    """A model of transformers in float32, on the CPU."""

    def __init__(self, path: str, request: dict[str, Any]) -> None:
        import torch
        import transformers

        self._torch, self._reads = torch, request["reads"]
        auto: Any = getattr(transformers, request["auto_class"])
        # Of a dense model, no code is run: none is needed.
        trust = request["trust_remote_code"] and path != request["dense"]
        self._model = auto.from_pretrained(path, dtype=torch.float32, local_files_only=True, trust_remote_code=trust).eval()

    def score(self, tokens: list[int], top: int) -> list[running.Position]:
        """See `running.Decoder`."""
        with self._torch.inference_mode():
            logits = self._model(input_ids=self._torch.tensor([tokens])).logits[0]
        return running.positions_of(logits.float().numpy(), tokens, top)

    def generate(self, tokens: list[int], count: int) -> list[int]:
        """See `running.Decoder`."""
        cache: list[Any] = [None]

        def last(fed: list[int]) -> Any:
            result = self._model(input_ids=self._torch.tensor([fed]), past_key_values=cache[0], use_cache=True)
            cache[0] = result.past_key_values
            return result.logits[0, -1]

        with self._torch.inference_mode():
            return list(running.greedy(last, tokens, count))

    def outputs(self, inputs: dict[str, Any]) -> list[Any]:
        """See `running.Passes`."""
        result = self.prepare(inputs)()
        return [getattr(result, name).float().numpy() for name in self._reads]

    def prepare(self, inputs: dict[str, Any]) -> Callable[[], Any]:
        """See `running.Passes`."""
        given = {name: self._torch.tensor(values) for name, values in inputs.items()}

        def run() -> Any:
            with self._torch.inference_mode():
                return self._model(**given)

        return run

    def close(self) -> None:
        """See `running.Decoder`."""
        del self._model


if __name__ == "__main__":
    running.run_script(describe, Model)
