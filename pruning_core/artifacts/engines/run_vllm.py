"""Runs a checkpoint in vLLM, in one process. Started by `prover`; see `running`.

Coppice's plug-in for vLLM, where that interpreter has it, is loaded by vLLM itself.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import multiprocessing
import os
import socket
import sys
import threading
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent))

import running


def describe(request: dict[str, Any]) -> dict[str, Any]:
    """Import vLLM, told to stay in this process and to keep few keys and values."""
    os.environ |= {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": "WARNING",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": str(request["threads"]),
    }
    _do_without_shared_memory()
    _do_without_sockets()
    return {"version": importlib.import_module("vllm").__version__, "dtype": request["dtype"]}


def _do_without_shared_memory() -> None:
    """Make locks of this one process alone, where a sandbox gives no memory that processes share."""
    try:
        multiprocessing.Lock()
    except OSError:
        for name in ("Lock", "RLock"):
            setattr(multiprocessing, name, getattr(threading, name))


def _do_without_sockets() -> None:
    """Make a group of one process without the network, where a sandbox lets no process open a socket.

    vLLM makes its groups of processes with gloo, which listens even where a group has one member. torch's own fake group does
    nothing for a collective operation, and for one member there is nothing to do.
    """
    try:
        socket.socket().close()
    except OSError:
        from torch import distributed

        importlib.import_module("torch.testing._internal.distributed.fake_pg")
        network: Any = importlib.import_module("vllm.utils.network_utils")
        platform: Any = importlib.import_module("vllm.platforms").current_platform
        place, made = f"file://{Path.cwd() / 'group'}", distributed.new_group

        def fake_group(*given: Any, **named: Any) -> Any:
            return made(*given, **{**named, "backend": "fake"})

        distributed.new_group = fake_group
        type(platform).dist_backend = "fake"
        instead: dict[str, Any] = {
            "get_ip": lambda: "127.0.0.1",
            "get_open_port": lambda: 1,
            "get_distributed_init_method": lambda _ip, _port: place,  # pyright: ignore[reportUnknownLambdaType]
        }
        for name, function in instead.items():
            setattr(network, name, function)
        for module in [*sys.modules.values()]:  # those that have imported these names already
            for name, function in instead.items():
                if getattr(module, "__name__", "").startswith("vllm.") and name in vars(module):
                    setattr(module, name, function)


class Model:
    """An engine of vLLM."""

    def __init__(self, path: str, request: dict[str, Any]) -> None:
        self._vllm: Any = importlib.import_module("vllm")
        longest = max(map(len, [*request["texts"], *request["prompts"], request["timing"]["prompt"]]))
        self._llm = self._vllm.LLM(
            path,
            dtype=request["dtype"],
            enforce_eager=True,  # compiling takes minutes
            skip_tokenizer_init=True,
            max_model_len=min(longest + 2 + max(request["new_tokens"], request["timing"]["new_tokens"]), request["positions"]),
            max_num_seqs=4,
            enable_prefix_caching=False,  # what is timed again must be computed again
            trust_remote_code=request["trust_remote_code"] and path != request["dense"],
            disable_log_stats=True,
            seed=0,
        )

    def score(self, tokens: list[int], top: int) -> list[running.Position]:
        """See `running.Decoder`."""
        given = self._vllm.SamplingParams(temperature=0.0, max_tokens=1, prompt_logprobs=top, detokenize=False)
        answer = self._llm.generate([{"prompt_token_ids": tokens}], given, use_tqdm=False)[0]
        found: list[running.Position] = []
        for entries in answer.prompt_logprobs[1:]:
            ranked = sorted(entries.items(), key=lambda entry: entry[1].rank)
            found.append(([int(own) for own, _entry in ranked], [float(entry.logprob) for _own, entry in ranked]))
        return found

    def generate(self, tokens: list[int], count: int) -> list[int]:
        """See `running.Decoder`."""
        given = self._vllm.SamplingParams(temperature=0.0, max_tokens=count, ignore_eos=True, detokenize=False)
        answer = self._llm.generate([{"prompt_token_ids": tokens}], given, use_tqdm=False)[0]
        return [int(token) for token in answer.outputs[0].token_ids]

    def close(self) -> None:
        """See `running.Decoder`."""
        with contextlib.suppress(Exception):
            self._llm.llm_engine.engine_core.shutdown()
        del self._llm
        gc.collect()


if __name__ == "__main__":
    running.run_script(describe, Model)
