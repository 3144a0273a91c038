"""Runs a GGUF file in llama.cpp, by llama-cpp-python. Started by `prover`; see `running`."""

from __future__ import annotations

import ctypes
import importlib
import sys
from functools import partial
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent))

import running


def describe(request: dict[str, Any]) -> dict[str, Any]:
    """Import llama.cpp. It computes in the type of the file."""
    return {"version": importlib.import_module("llama_cpp").__version__, "dtype": request["dtype"]}


_ERROR = 4  # llama.cpp's level
# llama.cpp logs while models are freed, too, so that what listens must live to the end.
_heard: list[Any] = []


class Model:
    """A model of llama.cpp."""

    def __init__(self, path: str, request: dict[str, Any]) -> None:
        longest = max(map(len, [*request["texts"], *request["prompts"], request["timing"]["prompt"]]))
        library: Any = importlib.import_module("llama_cpp")
        said: list[str] = []
        # llama-cpp-python says that a file can't be loaded; only llama.cpp's log says why.
        _heard.append(library.llama_log_callback(partial(_hear, said)))
        library.llama_log_set(_heard[-1], ctypes.c_void_p(0))
        try:
            self._llama = self._loaded(library, path, longest, request)
        except ValueError as error:
            if not said:
                raise
            raise ValueError(f"{error}: {said[0]}") from None

    @staticmethod
    def _loaded(library: Any, path: str, longest: int, request: dict[str, Any]) -> Any:
        return library.Llama(
            path,
            n_ctx=longest + 2 + max(request["new_tokens"], request["timing"]["new_tokens"]),
            n_threads=request["threads"],
            n_threads_batch=request["threads"],
            n_gpu_layers=0,
            logits_all=True,
            verbose=False,
            seed=0,
        )

    def score(self, tokens: list[int], top: int) -> list[running.Position]:
        """See `running.Decoder`."""
        self._llama.reset()
        self._llama.eval(tokens)
        return running.positions_of(self._llama.scores[: len(tokens)], tokens, top)

    def generate(self, tokens: list[int], count: int) -> list[int]:
        """See `running.Decoder`."""
        self._llama.reset()
        return list(running.greedy(self._last, tokens, count))

    def _last(self, tokens: list[int]) -> Any:
        self._llama.eval(tokens)
        return self._llama.scores[self._llama.n_tokens - 1]

    def close(self) -> None:
        """See `running.Decoder`."""
        self._llama.close()


def _hear(said: list[str], level: int, text: bytes, _data: object) -> None:
    if level == _ERROR:
        said.append(text.decode("utf-8", errors="replace").strip())


if __name__ == "__main__":
    running.run_script(describe, Model)
