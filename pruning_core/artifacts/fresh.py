"""Run in a fresh process to prove bundles: stock transformers, stock onnxruntime, and nothing of ours.

A script, not a module to import: ``python fresh.py REQUEST.json RESULT.json PARENT_PID``. It does what a user of the bundle
would do, and writes down what came of it; `acceptance` judges. It must not import anything of the package that it lies in,
and sees to it that nothing else does.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

WARM_UP = 3
_PR_SET_PDEATHSIG = 1


def main(request_path: str, result_path: str, parent: int) -> None:
    """Prove every checkpoint of a request, one after the other."""
    die_with(parent)
    sys.modules["pruning_core"] = None  # pyright: ignore[reportArgumentType] - as if it were not installed
    request = json.loads(Path(request_path).read_text(encoding="utf-8"))
    results = [prove(checkpoint, request) for checkpoint in request["checkpoints"]]
    Path(result_path).write_text(json.dumps(results), encoding="utf-8")


def die_with(parent: int) -> None:
    """Have the kernel end this process when its parent dies, as nobody would read what it found (on Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            sys.exit(1)


def prove(checkpoint: dict[str, Any], request: dict[str, Any]) -> dict[str, Any]:
    """Load one checkpoint, run it, count its files, and time it where that is asked for; an error is a result too."""
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    folder = checkpoint["folder"]
    stage = "tokenizer"
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        stage = "transformers"
        model = load(folder, request, trust=request["trust_remote_code"])
        with torch.inference_mode():
            outputs = [run(model, encode(tokenizer, probe), request) for probe in request["probes"]]
        parameters = sum(p.numel() for p in model.parameters())
        found: dict[str, Any] = {"outputs": outputs, "parameters": parameters, **count(Path(folder))}
        found["libraries"] = {library.__name__: library.__version__ for library in (torch, transformers)}
        if checkpoint["onnx"] is not None:
            found["onnx"] = prove_onnx(str(Path(folder) / checkpoint["onnx"]), tokenizer, request)
        if checkpoint["measure_again"]:
            stage = "latency"
            found["latency"] = time_in_turns(load(request["dense"], request, trust=False), model, request)
    except Exception as error:  # whatever it is, it is what a user would have met
        return {"error": f"{type(error).__name__}: {first_line(str(error))}", "stage": stage}
    return found


def first_line(text: str) -> str:
    """Keep what a sentence can quote."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "")[:300]


def load(folder: str, request: dict[str, Any], *, trust: bool) -> Any:
    """Load as users do, in float32 as the worker did."""
    import torch
    import transformers

    auto = getattr(transformers, request["auto_class"])
    model = auto.from_pretrained(folder, dtype=torch.float32, local_files_only=True, trust_remote_code=trust)
    return model.eval().to(request["device"])


def encode(tokenizer: Any, probe: dict[str, Any]) -> dict[str, Any]:
    """Tokenise one batch of texts or pairs."""
    columns = [list(column) for column in zip(*probe["texts"], strict=True)]
    encoded = tokenizer(*columns, truncation=True, max_length=probe["length"], padding=True, return_tensors="pt")
    return {name: encoded[name] for name in tokenizer.model_input_names if name in encoded}


def run(model: Any, inputs: dict[str, Any], request: dict[str, Any]) -> list[list[float]]:
    """Give logits, or pooled embeddings of unit length."""
    moved = {name: tensor.to(request["device"]) for name, tensor in inputs.items()}
    result = model(**moved)
    if request["pooling"] is None:
        return result.logits.float().cpu().tolist()
    return pool(result.last_hidden_state, moved["attention_mask"], request["pooling"]).float().cpu().tolist()


def pool(hidden: Any, mask: Any, pooling: str) -> Any:
    """Pool as sentence-transformers does."""
    import torch

    weights = mask.unsqueeze(-1).to(hidden.dtype)
    pooled = hidden[:, 0] if pooling == "cls" else (hidden * weights).sum(1) / weights.sum(1)
    return torch.nn.functional.normalize(pooled, dim=-1)


def count(folder: Path) -> dict[str, int]:
    """Count stored values and bytes of the weight files, by the library that everyone reads them with."""
    import math

    from safetensors import safe_open

    stored = size = 0
    for path in sorted(folder.glob("*.safetensors")):
        size += path.stat().st_size
        with safe_open(path, "pt") as file:
            stored += sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118 - no mapping
    return {"stored": stored, "bytes": size}


def prove_onnx(path: str, tokenizer: Any, request: dict[str, Any]) -> dict[str, Any]:
    """Run the exported graph; what goes wrong there says nothing of the checkpoint."""
    try:
        return run_onnx(path, tokenizer, request)
    except Exception as error:
        return {"error": f"{type(error).__name__}: {first_line(str(error))}"}


def run_onnx(path: str, tokenizer: Any, request: dict[str, Any]) -> dict[str, Any]:
    """Run the exported graph on the same texts, and time it at the spec's shape."""
    import numpy as np
    import onnxruntime
    import torch

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = request["timing"]["threads"]
    options.log_severity_level = 3
    session: Any = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]
    outputs: list[list[list[float]]] = []
    for probe in request["probes"]:
        inputs = encode(tokenizer, probe)
        answer = torch.from_numpy(session.run(None, {name: inputs[name].numpy() for name in names})[0])
        outputs.append(
            (answer if request["pooling"] is None else pool(answer, inputs["attention_mask"], request["pooling"])).tolist()
        )
    ids = np.asarray(request["timing"]["input_ids"], dtype=np.int64)
    known = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    feed = {name: known.get(name, np.zeros_like(ids)) for name in names}
    times = [milliseconds(lambda: session.run(None, feed)) for _ in range(WARM_UP + request["timing"]["repeats"])]
    return {"outputs": outputs, "milliseconds": times[WARM_UP:], "version": onnxruntime.__version__}


def time_in_turns(dense: Any, pruned: Any, request: dict[str, Any]) -> dict[str, Any]:
    """Time both models dense, pruned, dense, pruned."""
    import torch

    timing = request["timing"]
    torch.set_num_threads(timing["threads"])
    ids = torch.tensor(timing["input_ids"], device=request["device"])
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    times: dict[str, list[float]] = {"dense": [], "pruned": []}
    with torch.inference_mode():
        for turn in range(-WARM_UP, timing["repeats"]):
            for name, model in (("dense", dense), ("pruned", pruned)):
                elapsed = milliseconds(lambda model=model: model(**inputs), wait=request["device"].startswith("cuda"))
                if turn >= 0:
                    times[name].append(elapsed)
    return {**times, "threads": torch.get_num_threads()}


def milliseconds(forward: Any, *, wait: bool = False) -> float:
    """Milliseconds of one call, until the device is done."""
    import torch

    if wait:
        torch.cuda.synchronize()
    began = time.perf_counter()
    forward()
    if wait:
        torch.cuda.synchronize()
    return (time.perf_counter() - began) * 1e3


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
