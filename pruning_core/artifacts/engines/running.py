"""What the scripts that run engines share: the request, the rounds, and what is written down.

A script runs in the engine's own interpreter, as ``python -P run_NAME.py REQUEST.json RESULT.json PARENT_PID STAGE``. Neither
it nor this file, which lies beside it, imports anything of Coppice. `messages` has the words of request and result.
"""

from __future__ import annotations

import ctypes
import json
import math
import os
import resource
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

MOST_CAUSES = 16
_PR_SET_PDEATHSIG = 1
# As in `pruning_core.tasks.base`.
PROVEN_ENTRIES = 64

# A position: ids of tokens, the most likely first, and their log-probabilities.
Position = tuple[list[int], list[float]]


class Decoder(Protocol):
    """A model that generates text, loaded in an engine."""

    def score(self, tokens: list[int], top: int) -> list[Position]:
        """Return a position for each token but the last: what follows it, and the token that does follow."""
        ...

    def generate(self, tokens: list[int], count: int) -> list[int]:
        """Return a greedy continuation of that many tokens, whatever ends a text."""
        ...

    def close(self) -> None:
        """Give its memory back."""
        ...


class Passes(Protocol):
    """A model whose outputs are its result, loaded in an engine."""

    def outputs(self, inputs: dict[str, Any]) -> list[Any]:
        """Run it on named lists of numbers, and return what the task reads: nested lists or arrays, in the request's order."""
        ...

    def prepare(self, inputs: dict[str, Any]) -> Callable[[], Any]:
        """Return a function that runs it on these inputs, to be timed."""
        ...


Reach = Callable[[str], None]


def run_script(
    describe: Callable[[dict[str, Any]], dict[str, Any]],
    load: Callable[[str, dict[str, Any]], Any],
    *,
    together: bool = True,
) -> None:
    """Do what a request asks for, and write down what was found; an error is a result, too.

    Args:
        describe: Imports the engine; returns its version as ``version``, and the type it computes in as ``dtype``.
        load: Loads a model from a path.
        together: Whether the dense and the pruned model may be loaded at once; else they are loaded in turns.
    """
    request_path, result_path, parent, stage_path = sys.argv[1:5]
    die_with(int(parent))

    def reach(stage: str) -> None:
        Path(stage_path).write_text(stage, encoding="utf-8")

    def write(found: dict[str, Any]) -> None:
        part = Path(f"{result_path}.part")
        part.write_text(json.dumps(found, allow_nan=True), encoding="utf-8")
        part.replace(result_path)

    request = json.loads(Path(request_path).read_text(encoding="utf-8"))
    stage = ["import"]

    def at(name: str) -> None:
        stage[0] = name
        reach(name)

    found: dict[str, Any] = {}
    try:
        at("import")
        found |= describe(request)
        at("load")
        pruned = load(request["path"], request)
        at("run")
        found |= scored(pruned, request) if request["use"] == "generation" else passed(pruned, request)
        write(found)  # should the clock's turn take too much time or memory, this stands
        at("dense" if request["dense"] else "time")
        found["speeds"] = timed(pruned, load, request, together=together, reach=at)
    except BaseException as error:  # users would meet it too, whatever it is
        if isinstance(error, KeyboardInterrupt):
            raise
        traceback.print_exc()  # for the log
        found |= {**told(error), "stage": stage[0]}
    write(found)
    # Engines leave threads and atexit hooks behind, some of which wait for each other.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def scored(model: Decoder, request: dict[str, Any]) -> dict[str, Any]:
    """Score the texts, and continue the prompts."""
    texts = [model.score(text, request["top"]) for text in request["texts"]]
    generated = [model.generate(prompt, request["new_tokens"]) for prompt in request["prompts"]]
    return {"texts": texts, "generated": generated}


def passed(model: Passes, request: dict[str, Any]) -> dict[str, Any]:
    """Run the model on the inputs, and reduce its outputs to what is compared."""
    return {"outputs": [reduced(model.outputs(inputs), inputs.get("attention_mask")) for inputs in request["inputs"]]}


def timed(
    pruned: Any,
    load: Callable[[str, dict[str, Any]], Any],
    request: dict[str, Any],
    *,
    together: bool,
    reach: Reach = lambda _stage: None,
) -> dict[str, list[dict[str, float]]]:
    """Time the dense and the pruned model in turns, once each to warm up."""
    speeds: dict[str, list[dict[str, float]]] = {"dense": [], "pruned": []}
    turns = request["timing"]["turns"]
    if not turns:
        return speeds
    clock = _generation_times if request["use"] == "generation" else _pass_times
    if together or not request["dense"]:
        dense = load(request["dense"], request) if request["dense"] else None
        reach("time")
        models = [("dense", dense), ("pruned", pruned)] if dense is not None else [("pruned", pruned)]
        began = time.monotonic()
        for turn in range(-1, turns):
            if turn > 0 and time.monotonic() - began > request["timing"]["budget_s"]:
                break
            for name, model in models:
                found = clock(model, request)
                if turn >= 0:
                    speeds[name].append(found)
        return speeds
    pruned.close()
    for _round in range(2):
        for name, path in (("dense", request["dense"]), ("pruned", request["path"])):
            reach("dense" if name == "dense" else "load")
            model = load(path, request)
            reach("time")
            found = [clock(model, request) for _turn in range(-1, max(1, turns // 2))]
            speeds[name] += found[1:]
            model.close()
    return speeds


def _generation_times(model: Decoder, request: dict[str, Any]) -> dict[str, float]:
    """Return the seconds until the first token, which are those of the prompt, and the seconds of all further ones."""
    timing = request["timing"]
    first = _seconds(lambda: model.generate(timing["prompt"], 1))
    whole = _seconds(lambda: model.generate(timing["prompt"], 1 + timing["new_tokens"]))
    return {"prefill_s": first, "decode_s": max(whole - first, 1e-9)}


def _pass_times(model: Passes, request: dict[str, Any]) -> dict[str, float]:
    run = model.prepare(request["timing"]["inputs"])
    return {"pass_s": min(_seconds(run) for _repeat in range(3))}


def _seconds(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def position_of(row: Any, following: int, top: int) -> Position:
    """Return a position from a row of logits, a numpy array.

    Args:
        row: Logits of the vocabulary.
        following: The token that does follow; it is always among those returned.
        top: How many of the most likely tokens to return.
    """
    import numpy as np

    values = np.asarray(row, dtype=np.float64)
    values = values - values.max()
    values = values - math.log(np.exp(values).sum())
    count = min(top, values.shape[0])
    ids = np.argpartition(-values, count - 1)[:count]
    ids = [int(own) for own in ids[np.argsort(-values[ids], kind="stable")]]
    ids += [] if following in ids else [following]
    return ids, [float(values[own]) for own in ids]


def positions_of(rows: Any, tokens: Sequence[int], top: int) -> list[Position]:
    """Return the positions of a text from its logits, an array of a row a token."""
    return [position_of(rows[index], tokens[index + 1], top) for index in range(len(tokens) - 1)]


def greedy(last: Callable[[list[int]], Any], tokens: list[int], count: int) -> Iterator[int]:
    """Yield the most likely tokens one after the other; `last` takes tokens not seen yet and returns the last row of logits."""
    fed = list(tokens)
    for _step in range(count):
        chosen = int(last(fed).argmax())
        yield chosen
        fed = [chosen]


def reduced(outputs: list[Any], mask: Any) -> list[list[float]]:
    """Reduce outputs to what is compared, as the reference does: of long vectors for every token, a part."""
    import numpy as np

    arrays = [np.asarray(own, dtype=np.float64) for own in outputs]
    found = arrays[0] if len(arrays) == 1 else np.stack(arrays, axis=-1)
    if found.ndim > 2:
        entries = found.shape[-1]
        if entries > PROVEN_ENTRIES:
            index = [entry * (entries - 1) // (PROVEN_ENTRIES - 1) for entry in range(PROVEN_ENTRIES)]
            largest = found.max(axis=-1, keepdims=True)
            whole = largest + np.log(np.exp(found - largest).sum(axis=-1, keepdims=True))
            found = np.concatenate([found[..., index], whole], axis=-1)
        if mask is not None and np.asarray(mask).shape == found.shape[:2]:
            found = found * np.asarray(mask, dtype=np.float64)[..., None]
        found = found.reshape(found.shape[0], -1)
    return found.tolist()


class Graph:
    """A graph of named inputs and outputs in order, as ONNX Runtime and OpenVINO run it; a subclass has `prepare`.

    Attributes:
        takes: The types of its inputs by name.
    """

    takes: dict[str, str]

    def prepare(self, inputs: dict[str, Any]) -> Callable[[], Any]:
        """See `Passes`."""
        raise NotImplementedError

    def outputs(self, inputs: dict[str, Any]) -> list[Any]:
        """See `Passes`."""
        return list(self.prepare(inputs)())

    def fed(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Return the inputs that it takes, as arrays of their types."""
        import numpy as np

        return {
            name: np.asarray(inputs[name], dtype=np.float32 if "f" in kind else np.int64) for name, kind in self.takes.items()
        }

    def score(self, tokens: list[int], top: int) -> list[Position]:
        """See `Decoder`."""
        return positions_of(self._rows(tokens), tokens, top)

    def generate(self, tokens: list[int], count: int) -> list[int]:
        """See `Decoder`. Without a cache: each token takes a pass over all before it."""
        written = list(tokens)
        for _step in range(count):
            written.append(int(self._rows(written)[-1].argmax()))
        return written[len(tokens) :]

    def _rows(self, tokens: list[int]) -> Any:
        known = {"input_ids": [tokens], "attention_mask": [[1] * len(tokens)], "token_type_ids": [[0] * len(tokens)]}
        return self.outputs(known)[0][0]

    def close(self) -> None:
        """See `Decoder`."""


def beside_torch(threads: int) -> Any:
    """Import torch, with as many threads as are asked for."""
    import torch

    torch.set_num_threads(threads)
    return torch


def told(error: BaseException) -> dict[str, Any]:
    """Describe an error and its causes, by which the caller tells a lack of memory or disk space from other faults."""
    causes: list[str] = []
    cause: BaseException | None = error
    while cause is not None and len(causes) < MOST_CAUSES:
        causes.append(f"{type(cause).__name__}: {cause}"[:2000])
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return {"error": f"{type(error).__name__}: {first_line(str(error))}", "causes": causes}


def first_line(text: str) -> str:
    """Return the first line that is not blank, short enough to be quoted in a sentence."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "")[:300]


def die_with(parent: int) -> None:
    """Make this process end when its parent dies, since nobody would read its results."""
    with suppress(OSError, ValueError):
        _, hard = resource.getrlimit(resource.RLIMIT_CORE)
        resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            sys.exit(1)
    else:
        threading.Thread(target=_look_for, args=(parent,), daemon=True).start()


def _look_for(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
