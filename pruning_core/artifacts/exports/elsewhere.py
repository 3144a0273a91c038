"""The script of the process that runs one further form of a checkpoint in a stock library: without Coppice, as a user would.

Run as ``python elsewhere.py REQUEST.json INPUTS.npz OUTPUTS.npz PARENT_PID``; not a module to import. `proof` starts it and
judges its outputs. It needs numpy and the library, and torch for transformers alone, so that an interpreter of the engine's own
can run it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

WARM_UP = 3
TIMED = "timed"

Feed = dict[str, Any]
Run = Callable[[Feed], list[Any]]


def main(request_path: str, inputs_path: str, outputs_path: str, parent: int) -> None:
    """Run the form on every batch, time it, and write down outputs and milliseconds; an error is written beside them."""
    import numpy as np

    sys.path.append(str(Path(__file__).parent.parent))
    import fresh  # pyright: ignore[reportMissingImports] - the script beside this package, by its path

    sys.path.pop()
    told: Any = fresh
    told.die_with(parent)
    sys.modules["pruning_core"] = None  # pyright: ignore[reportArgumentType] - as if it were not installed
    request = json.loads(Path(request_path).read_text(encoding="utf-8"))
    batches: dict[str, Feed] = {}
    with np.load(inputs_path) as given:
        for key in given.files:
            batch, _, name = key.partition(":")
            batches.setdefault(batch, {})[name] = given[key]
    found: dict[str, Any] = {}
    answer: dict[str, Any] = {}
    try:
        run, answer["version"] = ENGINES[request["engine"]](request)
        timed = batches.pop(TIMED, None)
        for batch, feed in batches.items():
            for name, values in zip(request["reads"], run(feed), strict=True):
                found[f"{batch}:{name}"] = np.asarray(values, dtype=np.float32)
        if timed is not None:
            times = [told.milliseconds(partial(run, timed)) for _ in range(WARM_UP + request["repeats"])]
            answer["milliseconds"] = times[WARM_UP:]
    except Exception as error:  # a user would meet the same error, whatever it is
        answer |= told.told(error)
    np.savez(outputs_path, **found)
    Path(request_path).write_text(json.dumps(answer), encoding="utf-8")


def onnxruntime(request: dict[str, Any]) -> tuple[Run, str]:
    """Load an ONNX graph."""
    import onnxruntime as library

    options = library.SessionOptions()
    options.intra_op_num_threads = request["threads"]
    options.log_severity_level = 3
    session: Any = library.InferenceSession(request["path"], options, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]
    return lambda feed: session.run(None, {name: feed[name] for name in names}), library.__version__


def openvino(request: dict[str, Any]) -> tuple[Run, str]:
    """Load OpenVINO's form, to compute in float32: on some processors it would compute in bfloat16."""
    sys.modules["openvino_telemetry"] = None  # pyright: ignore[reportArgumentType] - nothing is told to anyone
    import openvino as library

    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": request["threads"]}
    compiled: Any = library.Core().compile_model(request["path"], "CPU", settings)
    names = [entry.any_name for entry in compiled.inputs]

    def run(feed: Feed) -> list[Any]:
        found = compiled([feed[name] for name in names])
        return [found[output] for output in compiled.outputs]

    return run, str(library.__version__)


def transformers(request: dict[str, Any]) -> tuple[Run, str]:
    """Load a checkpoint by stock transformers, in float32."""
    import torch
    import transformers as library

    torch.set_num_threads(request["threads"])
    library.logging.set_verbosity_error()
    library.logging.disable_progress_bar()
    auto = getattr(library, request["auto_class"])
    model, told = auto.from_pretrained(
        request["path"],
        dtype=torch.float32,
        local_files_only=True,
        trust_remote_code=request["trust_remote_code"],
        output_loading_info=True,
    )
    lacking = sorted(told["missing_keys"])
    if lacking:  # transformers fills them with whatever lies in memory, which may look like values
        raise ValueError(f"the files lack {lacking[0]}{f' and {len(lacking) - 1} more values' if len(lacking) > 1 else ''}")
    model.eval()

    def run(feed: Feed) -> list[Any]:
        with torch.inference_mode():
            result = model(**{name: torch.from_numpy(values) for name, values in feed.items()})
        return [getattr(result, name).float().numpy() for name in request["reads"]]

    return run, library.__version__


ENGINES = {"onnxruntime": onnxruntime, "openvino": openvino, "transformers": transformers}

if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
