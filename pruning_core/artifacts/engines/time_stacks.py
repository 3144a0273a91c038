"""Times stacks of layers in one engine, for the table of a latency target. Started by `stacks`; see `running`.

Runs in the engine's own interpreter, as ``python -P time_stacks.py RUN_MODULE REQUEST.json RESULT.json PARENT_PID STAGE``. How
the engine is imported and loads a checkpoint says the script that proves bundles in it, which is imported as a module.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent))

import running

Times = list[dict[str, float]]


def timed(load: Callable[[str, dict[str, Any]], Any], request: dict[str, Any], reach: Callable[[str], None]) -> list[Times]:
    """Time all stacks in turns, each once more at first to warm up.

    They are loaded at once where there is memory for that; else one after the other, twice.
    """
    paths, timing = request["stacks"], request["timing"]
    found: list[Times] = [[] for _path in paths]
    began = time.monotonic()

    def is_late() -> bool:
        return time.monotonic() - began > timing["budget_s"]

    if request["together"]:
        models: list[Any] = []
        for path in paths:
            reach("load")
            models.append(load(path, request))
        reach("time")
        for turn in range(-1, timing["turns"]):
            if turn > 1 and is_late():
                break
            for model, kept in zip(models, found, strict=True):
                measured = _times(model, request)
                if turn >= 0:
                    kept.append(measured)
        return found
    for again in range(2):
        if again and is_late():
            break
        for path, kept in zip(paths, found, strict=True):
            reach("load")
            model = load(path, request)
            reach("time")
            kept.extend([_times(model, request) for _turn in range(-1, max(1, timing["turns"] // 2))][1:])
            if hasattr(model, "close"):
                model.close()
            del model
    return found


def _times(model: Any, request: dict[str, Any]) -> dict[str, float]:
    """Return the seconds of a prompt, and of it with the tokens after it; or of a pass."""
    timing = request["timing"]
    if request["use"] != "generation":
        run = model.prepare(timing["inputs"])
        return {"pass_s": min(_seconds(run) for _repeat in range(3))}
    first = _seconds(lambda: model.generate(timing["prompt"], 1))
    whole = _seconds(lambda: model.generate(timing["prompt"], 1 + timing["new_tokens"]))
    return {"prefill_s": first, "whole_s": whole}


def _seconds(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def main() -> None:
    """Do what the request asks for, and write down the times; an error is a result, too."""
    module, request_path, result_path, parent, stage_path = sys.argv[1:6]
    running.die_with(int(parent))
    request = json.loads(Path(request_path).read_text(encoding="utf-8"))
    stage = ["import"]

    def reach(name: str) -> None:
        stage[0] = name
        Path(stage_path).write_text(name, encoding="utf-8")

    found: dict[str, Any] = {}
    try:
        reach("import")
        runner = importlib.import_module(module)
        found |= runner.describe(request)
        found["times"] = timed(runner.Model, request, reach)
    except BaseException as error:  # whatever it is, the job says it
        if isinstance(error, KeyboardInterrupt):
            raise
        traceback.print_exc()  # for the log
        found |= {**running.told(error), "stage": stage[0]}
    part = Path(f"{result_path}.part")
    part.write_text(json.dumps(found, allow_nan=True), encoding="utf-8")
    part.replace(result_path)
    # Engines leave threads and atexit hooks behind, some of which wait for each other.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
