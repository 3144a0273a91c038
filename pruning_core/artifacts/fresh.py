"""The script of the fresh process that proves bundles with stock transformers and stock onnxruntime, without Coppice.

Run as ``python fresh.py REQUEST.json RESULT.json PARENT_PID STAGE [MODULE …]``; not a module to import. With names of modules
it imports them and waits for the request. The script does what a user of the bundle would do, and writes down the results;
`acceptance` judges them. It must not import anything of the package that it lies in, and it keeps other modules from doing so.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

WARM_UP = 3
# The same numbers as in `pruning_core.tasks`: see `proven` in its `base`, and `PROVEN_STEPS` in its `sequences`.
PROVEN_ENTRIES = 64
DECODER_STEPS = 8
MOST_CAUSES = 16
LOOK_S = 0.02
_PR_SET_PDEATHSIG = 1


def main(request_path: str, result_path: str, parent: int, stage_path: str, *modules: str) -> None:
    """Prove every checkpoint of a request, one after the other, and keep the name of the current stage in a file."""
    die_with(parent)
    sys.modules["pruning_core"] = None  # pyright: ignore[reportArgumentType] - as if it were not installed
    if modules:
        for name in modules:
            importlib.import_module(name)
        Path(stage_path).write_text("start 1 1", encoding="utf-8")
        while not Path(request_path).exists():
            time.sleep(LOOK_S)
    request = json.loads(Path(request_path).read_text(encoding="utf-8"))
    allow_mapping([Path(checkpoint["folder"]) for checkpoint in request["checkpoints"] if checkpoint["device_map"]])
    count = len(request["checkpoints"])

    def reach(number: int, stage: str) -> None:
        Path(stage_path).write_text(f"{stage} {number} {count}", encoding="utf-8")

    results = [
        prove(checkpoint, request, lambda stage, number=number: reach(number, stage))
        for number, checkpoint in enumerate(request["checkpoints"], start=1)
    ]
    Path(result_path).write_text(json.dumps(results), encoding="utf-8")


def allow_mapping(folders: Sequence[Path]) -> None:
    """Raise the limit of memory by the size of the files to be mapped: safetensors maps them so that the limit counts them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if soft != resource.RLIM_INFINITY and folders:
        more = soft + max(sum(path.stat().st_size for path in folder.glob("*.safetensors")) for folder in folders)
        resource.setrlimit(resource.RLIMIT_DATA, (more if hard == resource.RLIM_INFINITY else min(more, hard), hard))


def die_with(parent: int) -> None:
    """Make this process end when its parent dies, since nobody would read its results.

    On Linux the kernel ends it; elsewhere a thread polls for the parent. The process is in a process group of its own, so a
    signal to the parent's group does not reach it.
    """
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


def prove(checkpoint: dict[str, Any], request: dict[str, Any], reach: Callable[[str], None]) -> dict[str, Any]:
    """Load one checkpoint, run it, count its values, and time it where asked to. An error is returned as a result."""
    import torch
    import transformers

    as_users: Any = beside("as_users")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    folder = checkpoint["folder"]
    stage = "tokenizer"
    try:
        reach(stage)
        tokenizer = load_processor(folder, request)
        embedder, encoded = None, None
        if request["sentences"] is not None:
            stage = "sentence-transformers"
            reach(stage)
            embedder, tokenizer, encoded = as_users.prove_sentences(folder, request, checkpoint["device_map"])
        stage = "transformers"
        reach(stage)
        model = load(folder, request, trust=request["trust_remote_code"], device_map=checkpoint["device_map"])
        with torch.inference_mode():
            outputs = [
                run(model, encode(tokenizer, probe, request, embedder), request, embedder) for probe in request["probes"]
            ]
        computed = model._keys_to_ignore_on_save or ()  # tables of sines, which are not stored
        parameters = sum(p.numel() for name, p in model.named_parameters() if name not in computed)
        found: dict[str, Any] = {"outputs": outputs, "parameters": parameters, **count(Path(folder))}
        found |= {"encoded": encoded, "facts": as_users.facts(model, tokenizer, request["fact_texts"])}
        libraries = [torch, transformers, *([sys.modules["sentence_transformers"]] if encoded is not None else [])]
        found["libraries"] = {library.__name__: library.__version__ for library in libraries}
        if checkpoint["onnx"] is not None:
            reach("onnx")
            found["onnx"] = prove_onnx(str(Path(folder) / checkpoint["onnx"]), tokenizer, request, embedder)
        if checkpoint["compressed"] is not None:
            reach("compressed")
            found["compressed"] = prove_compressed(Path(folder) / checkpoint["compressed"], model, request)
        if checkpoint["measure_again"]:
            stage = "latency"
            reach(stage)
            found["latency"] = time_in_turns(load(request["dense"], request, trust=False), model, request)
    except Exception as error:  # a user would meet the same error, whatever it is
        return {**told(error), "stage": stage}
    return found


def beside(name: str) -> Any:
    """Import the script's other part, which lies beside it and must not import anything of the package either."""
    sys.path.append(str(Path(__file__).parent))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.pop()


def told(error: BaseException) -> dict[str, Any]:
    """Describe an error and its causes, by which the caller tells a lack of memory or disk space from a bad checkpoint."""
    causes: list[str] = []
    cause: BaseException | None = error
    while cause is not None and len(causes) < MOST_CAUSES:
        causes.append(f"{type(cause).__name__}: {cause}"[:2000])
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return {"error": f"{type(error).__name__}: {first_line(str(error))}", "causes": causes}


def first_line(text: str) -> str:
    """Return the first line that is not blank, short enough to be quoted in a sentence."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "")[:300]


def load(folder: str, request: dict[str, Any], *, trust: bool, device_map: dict[str, str] | None = None) -> Any:
    """Load a checkpoint as users do, in float32 as the worker did; a device map keeps modules of a large model on the disk."""
    import torch
    import transformers

    auto = getattr(transformers, request["auto_class"])
    # transformers writes converted weights into this folder, in the process's own scratch folder.
    place: dict[str, Any] = {"device_map": device_map, "offload_folder": "offload"} if device_map else {}
    model = auto.from_pretrained(folder, dtype=torch.float32, local_files_only=True, trust_remote_code=trust, **place)
    return model.eval() if device_map else model.eval().to(request["device"])


def load_processor(folder: str, request: dict[str, Any]) -> Any:
    """Load the tokenizer or, for images, the image processor."""
    import transformers

    # Without an answer to whether the bundle's own file is trusted, transformers would ask whoever sits at the terminal.
    trust = request["trust_remote_code"]
    if request["kind"] == "image":
        return transformers.AutoImageProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=trust)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=trust)
    if tokenizer.pad_token_id is None:  # true of many language models; no compared output depends on the padding token
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def encode(processor: Any, probe: dict[str, Any], request: dict[str, Any], embedder: Any) -> dict[str, Any]:
    """Prepare the model's inputs for one batch of texts, pairs, words or images."""
    import torch

    if request["kind"] == "image":
        return {"pixel_values": processor([image(row[0]) for row in probe["texts"]], return_tensors="pt")["pixel_values"]}
    words = request["kind"] == "words"
    columns = [probe["texts"]] if words else [list(column) for column in zip(*probe["texts"], strict=True)]
    if embedder is not None:
        columns[0] = [embedder.prompt + text for text in columns[0]]
    encoded = processor(
        *columns,
        is_split_into_words=words,
        truncation=True,
        max_length=probe["length"],
        padding=True,
        padding_side="right",
        return_tensors="pt",
    )
    inputs = {name: encoded[name] for name in processor.model_input_names if name in encoded}
    if request["decoder_start"] is not None:
        given = inputs["input_ids"][:, :DECODER_STEPS]
        inputs["decoder_input_ids"] = torch.cat([torch.full_like(given[:, :1], request["decoder_start"]), given[:, :-1]], dim=1)
    return inputs


def image(encoded: str) -> Any:
    """Decode a base64 image file to RGB, turned as its camera says."""
    import base64
    import io

    from PIL import Image, ImageOps

    return ImageOps.exif_transpose(Image.open(io.BytesIO(base64.b64decode(encoded)))).convert("RGB")


def run(model: Any, inputs: dict[str, Any], request: dict[str, Any], embedder: Any) -> list[list[float]]:
    """Run the model, and return the part of its outputs that is compared: logits, or embeddings."""
    moved = {name: tensor.to(request["device"]) for name, tensor in inputs.items()}
    result = model(**moved)
    return reduce([getattr(result, name) for name in request["reads"]], moved, embedder)


def reduce(outputs: list[Any], inputs: dict[str, Any], embedder: Any) -> list[list[float]]:
    """Reduce outputs to what is compared: embeddings; of logits for every token, evenly spaced entries and the logsumexp."""
    import torch

    found = outputs[0] if len(outputs) == 1 else torch.stack(outputs, dim=-1)
    mask = inputs.get("attention_mask")
    if embedder is not None:
        found = embedder.embed(found, mask)
    found = found.float()
    if found.ndim > 2:
        entries = found.shape[-1]
        if entries > PROVEN_ENTRIES:
            index = torch.linspace(0, entries - 1, PROVEN_ENTRIES).long().to(found.device)
            found = torch.cat([found[..., index], found.logsumexp(-1, keepdim=True)], dim=-1)
        if mask is not None and mask.shape == found.shape[:2]:
            found = found * mask.unsqueeze(-1)
        found = found.flatten(1)
    return found.cpu().tolist()


def count(folder: Path) -> dict[str, int]:
    """Count the stored values and the bytes of the weight files, with the library that users read them with.

    A matrix that is stored as integers of few bits counts with the weights that they stand for, and its scales with nothing.
    """
    import math

    from safetensors import safe_open

    words = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("coppice") or {}
    rounded = {form.get("stored", path): form["shape"] for path, form in (words.get("rounded") or {}).items()}
    stored = size = 0
    for path in sorted(folder.glob("*.safetensors")):
        size += path.stat().st_size
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118 - no mapping
                module, _, own = name.rpartition(".")
                if module in rounded and own in ("weight", "weight_scales"):
                    stored += math.prod(rounded[module]) if own == "weight" else 0
                else:
                    stored += math.prod(file.get_slice(name).get_shape())
    return {"stored": stored, "bytes": size}


def prove_compressed(folder: Path, dense: Any, request: dict[str, Any]) -> dict[str, Any]:
    """Load the compressed form by the code stored beside it, and compare every tensor bit by bit with the dense layout's."""
    try:
        model = load(str(folder), request, trust=True)
    except Exception as error:  # it says nothing about the dense layout's checkpoint
        return told(error)
    found, wanted = model.state_dict(), dense.state_dict()
    differing = [name for name, own in wanted.items() if name not in found or not same_bits(found[name], own)]
    return {"differing": differing + sorted(found.keys() - wanted.keys()), "compared": len(wanted), **count(folder)}


def same_bits(found: Any, wanted: Any) -> bool:
    """Return whether two tensors have the same data type, shape and bits; a tensor with a NaN equals no other."""
    import torch

    if found.dtype != wanted.dtype or found.shape != wanted.shape or not torch.equal(found, wanted):
        return False
    return not found.is_floating_point() or torch.equal(found.signbit(), wanted.signbit())


def prove_onnx(path: str, tokenizer: Any, request: dict[str, Any], embedder: Any) -> dict[str, Any]:
    """Run the exported graph; return an error as a result, since it says nothing about the checkpoint."""
    try:
        return run_onnx(path, tokenizer, request, embedder)
    except Exception as error:
        return told(error)


def run_onnx(path: str, tokenizer: Any, request: dict[str, Any], embedder: Any) -> dict[str, Any]:
    """Run the exported graph on the probes, and time it at the spec's shape."""
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
        inputs = encode(tokenizer, probe, request, embedder)
        answers = [torch.from_numpy(one) for one in session.run(None, {name: inputs[name].numpy() for name in names})]
        outputs.append(reduce(answers, inputs, embedder))
    if request["timing"]["pixels"] is not None:
        feed = {name: np.zeros(request["timing"]["pixels"], dtype=np.float32) for name in names}
    else:
        known = {name: np.asarray(values, dtype=np.int64) for name, values in request["timing"]["tokens"].items()}
        feed = {name: known.get(name, np.zeros_like(known["input_ids"])) for name in names}
    times = [milliseconds(lambda: session.run(None, feed)) for _ in range(WARM_UP + request["timing"]["repeats"])]
    return {"outputs": outputs, "milliseconds": times[WARM_UP:], "version": onnxruntime.__version__}


def time_in_turns(dense: Any, pruned: Any, request: dict[str, Any]) -> dict[str, Any]:
    """Time both models in alternation: dense, pruned, dense, pruned."""
    import torch

    timing = request["timing"]
    torch.set_num_threads(timing["threads"])
    inputs = {name: torch.tensor(values, device=request["device"]) for name, values in timing["tokens"].items()}
    if timing["pixels"] is not None:
        inputs["pixel_values"] = torch.zeros(timing["pixels"], device=request["device"])
    times: dict[str, list[float]] = {"dense": [], "pruned": []}
    with torch.inference_mode():
        for turn in range(-WARM_UP, timing["repeats"]):
            for name, model in (("dense", dense), ("pruned", pruned)):
                elapsed = milliseconds(lambda model=model: model(**inputs), wait=request["device"].startswith("cuda"))
                if turn >= 0:
                    times[name].append(elapsed)
    return {**times, "threads": torch.get_num_threads()}


def milliseconds(forward: Any, *, wait: bool = False) -> float:
    """Return the milliseconds of one call, until the device is done."""
    import torch

    if wait:
        torch.cuda.synchronize()
    began = time.perf_counter()
    forward()
    if wait:
        torch.cuda.synchronize()
    return (time.perf_counter() - began) * 1e3


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4], *sys.argv[5:])
