"""The proof of a further form: a process of its own loads and runs it, and its outputs are compared with the checkpoint's."""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor

from pruning_core.artifacts.exports import elsewhere
from pruning_core.artifacts.exports.base import Exported
from pruning_core.artifacts.probes import ProbeInput
from pruning_core.artifacts.process import run_limited
from pruning_core.errors import OutOfMemory
from pruning_core.machine.resources import told_of
from pruning_core.spec.prune import AUTO_CLASSES
from pruning_core.tasks.batch import Batch

Library = Literal["onnxruntime", "openvino", "transformers"]

# Seconds that the process may take to import its library and load the form, and multiply-accumulates of a slow core.
_LEAST_LIMIT_S = 600.0
_SLOWEST_MACS_S = 5e8
_SMALLEST = 1e-12

# Mean difference at which a quantised form is no form of the checkpoint any more: zeros would be as near.
LIKENESS = 1.0


class NotProven(Exception):
    """The form does not run, or does not give what it should; the message is a sentence's end: "onnxruntime ..."."""


@dataclass(frozen=True, slots=True)
class Proven:
    """What a form gives, measured against the checkpoint.

    Attributes:
        max_difference: Largest difference of the outputs, relative to the largest output of its batch.
        mean_difference: Root mean square of the differences, relative to that of the outputs: 0 is the same, 1 another model.
            Of outputs for every token, each token's mean is left out, which decides nothing.
        agreement: Share of the tokens whose largest entry is the checkpoint's; None where outputs are not of tokens.
        latency_ms: Median of a pass at the shape of the latency measurement; None where it was not timed.
        version: Version of the library.
    """

    max_difference: float
    mean_difference: float
    agreement: float | None
    latency_ms: float | None
    version: str


def off_by(found: Proven) -> str:
    """Say how far the outputs of a form are off, as a note of the report."""
    said = f"outputs differ by {found.mean_difference:.1%} on the whole (root mean square)"
    if found.agreement is None:
        return said
    return f"{said}; the largest entry is the checkpoint's at {found.agreement:.1%} of the probes' tokens"


def likeness(found: Proven) -> str:
    """Say how far the outputs of a form that is refused are off."""
    return f"outputs that differ by {found.mean_difference:.0%} on the whole (root mean square), more than {LIKENESS:.0%}"


def prove(asked: Exported, library: Library, path: Path, *, timed: bool = True) -> Proven:
    """Run a form in a stock library, in a process that ends after a time, and measure how far its outputs are off.

    Args:
        asked: The checkpoint.
        library: The library to load it with.
        path: The file or folder to load.
        timed: Whether to measure the latency as well.

    Raises:
        NotProven: It does not load or run, or gives something that cannot be compared.
        OutOfMemory: The process ran out of memory, which says nothing about the form.
    """
    batches = _batches(asked)
    with tempfile.TemporaryDirectory(prefix="coppice-export-") as scratch:
        answer, found = _run(
            _request(asked, library, path), _feeds(asked, batches, timed=timed), Path(scratch), _limit_s(asked)
        )
    return _summed(asked, batches, found, answer)


def prove_weights(asked: Exported, weights: Mapping[str, Tensor]) -> Proven:
    """Measure how far the outputs are off with other weights, where no stock library loads the form: here, in this process.

    Args:
        asked: The checkpoint.
        weights: The weights that were read back, by module path.
    """
    model, batches = asked.pruned, _batches(asked)
    inner = cast("Any", model.model)
    before = {name: inner.get_submodule(name).weight.data for name in weights}
    found: dict[str, Any] = {}
    try:
        for name, weight in weights.items():
            inner.get_submodule(name).weight.data = weight.to(before[name])
        with torch.inference_mode():
            for number, batch in enumerate(batches):
                result = inner(**batch.to(model.device).inputs)
                found |= {f"{number}:{name}": _array(getattr(result, name).float()) for name in model.family.reads}
    finally:
        for name, own in before.items():
            inner.get_submodule(name).weight.data = own
    return _summed(asked, batches, found, {})


def _batches(asked: Exported) -> list[Batch]:
    model, family = asked.pruned, asked.pruned.family
    probes = asked.probes or (ProbeInput(family.example, 8),)
    return [family.probe_inputs(model, family.probe_texts(own.texts), model.longest(own.length)) for own in probes]


def _summed(asked: Exported, batches: list[Batch], found: Mapping[str, Any], answer: Mapping[str, Any]) -> Proven:
    """Sum the comparisons of all batches.

    Raises:
        NotProven: Outputs cannot be compared.
    """
    reads = asked.pruned.family.reads
    measured = [
        _measured(asked, batch, {name: found[f"{number}:{name}"] for name in reads}) for number, batch in enumerate(batches)
    ]
    times = cast("list[float]", answer.get("milliseconds") or [])
    tokens = sum(own.tokens for own in measured)
    return Proven(
        max_difference=max(own.largest for own in measured),
        mean_difference=math.sqrt(sum(own.squares for own in measured) / max(sum(own.size for own in measured), _SMALLEST)),
        agreement=sum(own.agreeing for own in measured) / tokens if tokens else None,
        latency_ms=float(np.median(times)) if times else None,
        version=str(answer.get("version", "")),
    )


@dataclass(frozen=True, slots=True)
class _Measured:
    """The differences of one batch: the largest, sums of squares of differences and outputs, and tokens that agree."""

    largest: float
    squares: float
    size: float
    agreeing: int = 0
    tokens: int = 0


def _measured(asked: Exported, batch: Batch, found: Mapping[str, Any]) -> _Measured:
    """Compare the outputs of a batch.

    Raises:
        NotProven: They cannot be compared.
    """
    model, moved = asked.pruned, batch.to(asked.pruned.device)
    with torch.inference_mode():
        ours = model.outputs(moved.inputs).float()
        result = SimpleNamespace(**{name: torch.from_numpy(own).to(model.device) for name, own in found.items()})
        theirs = model.family.read(model, cast("Any", result), moved.inputs).float()
    if theirs.shape != ours.shape:
        raise NotProven(f"gives outputs of shape {tuple(theirs.shape)} where the checkpoint gives {tuple(ours.shape)}")
    if not bool(theirs.isfinite().all()):
        raise NotProven("gives outputs that are not finite numbers")
    if ours.ndim != 3:
        difference = theirs - ours
        largest = float(difference.abs().max() / ours.abs().max().clamp(min=_SMALLEST))
        return _Measured(largest, float(difference.square().sum()), float(ours.square().sum()))
    real = moved.real if moved.real.shape == ours.shape[:2] else torch.ones_like(ours[..., 0], dtype=torch.bool)
    mine, other = ours[real], theirs[real]
    largest = float((other - mine).abs().max() / mine.abs().max().clamp(min=_SMALLEST))
    agreeing = int((mine.argmax(-1) == other.argmax(-1)).sum())
    mine, other = (own - own.mean(-1, keepdim=True) for own in (mine, other))
    return _Measured(largest, float((other - mine).square().sum()), float(mine.square().sum()), agreeing, len(mine))


def _request(asked: Exported, library: Library, path: Path) -> dict[str, Any]:
    config = json.loads((asked.folder / "config.json").read_text(encoding="utf-8"))
    return {
        "engine": library,
        "path": str(path.absolute()),
        "reads": list(asked.pruned.family.reads),
        "threads": asked.timing.threads,
        "repeats": asked.timing.repeats,
        "auto_class": AUTO_CLASSES[asked.pruned.task_type],
        "trust_remote_code": "auto_map" in config,
    }


def _feeds(asked: Exported, batches: list[Batch], *, timed: bool) -> dict[str, Any]:
    """Return the inputs as arrays, by number of the batch and name."""
    feeds = {f"{number}:{name}": _array(own) for number, batch in enumerate(batches) for name, own in batch.inputs.items()}
    if not timed:
        return feeds
    model, timing = asked.pruned, asked.timing
    drawn = model.family.random_inputs(model, timing.batch, model.input_length(timing.length), torch.Generator().manual_seed(0))
    whole = {name: drawn[name] if name in drawn else torch.zeros_like(drawn["input_ids"]) for name in batches[0].inputs}
    return feeds | {f"{elsewhere.TIMED}:{name}": _array(own) for name, own in whole.items()}


def _array(tensor: Tensor) -> Any:
    return tensor.detach().cpu().numpy()


def _limit_s(asked: Exported) -> float:
    """Return the seconds that the process may take, by the multiply-accumulates of all its passes on a slow core."""
    tokens = sum(len(probe.texts) * asked.pruned.longest(probe.length) for probe in asked.probes)
    passes = asked.timing.repeats + elsewhere.WARM_UP
    tokens += asked.timing.batch * asked.pruned.input_length(asked.timing.length) * passes
    return _LEAST_LIMIT_S + asked.pruned.parameter_count() * tokens / _SLOWEST_MACS_S


def _run(request: dict[str, Any], feeds: Mapping[str, Any], scratch: Path, limit_s: float) -> tuple[dict[str, Any], Any]:
    """Run the process; return its answer and its outputs."""
    told, given, outputs, log = (scratch / name for name in ("told.json", "given.npz", "outputs.npz", "log"))
    told.write_text(json.dumps(request), encoding="utf-8")
    np.savez(given, **feeds)
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(scratch / "home"), "PYTHONWARNINGS": "ignore"}
    # -P: the script's own folder, which is part of our package, stays off the module path.
    command = [sys.executable, "-P", str(elsewhere.__file__), str(told), str(given), str(outputs), str(os.getpid())]
    code = run_limited(command, cwd=scratch, env=environment, log=log, limit_s=limit_s)
    if code == -signal.SIGKILL:
        raise OutOfMemory(f"the process that runs the model in {request['engine']} was killed, most likely for its memory")
    if code is None:
        raise NotProven(f"was stopped after {limit_s:.0f} s")
    if code != 0 or not outputs.exists():
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        sys.stderr.write("\n".join(lines[-30:]) + "\n")  # details for the log; people read the sentence
        raise NotProven(f"ended with exit code {code}")
    answer = cast("dict[str, Any]", json.loads(told.read_text(encoding="utf-8")))
    if "error" in answer:
        if told_of([answer["error"], *answer.get("causes", ())]) is not None:
            raise OutOfMemory(
                f"the process that runs the model in {request['engine']} ran out of memory; take a machine with more"
            )
        raise NotProven(f"cannot load or run it ({answer['error'].replace(request['path'], '.')})")
    with np.load(outputs) as found:
        return answer, {name: found[name] for name in found.files}
