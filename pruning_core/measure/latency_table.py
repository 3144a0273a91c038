"""What sublayers cost in milliseconds at every width, measured on the device at hand: the ground of latency targets.

Halving a sublayer's units does not halve its time: kernels have fixed costs, and norms and residual sums stay. So one
sublayer of each shape is sliced to a ladder of widths and timed; between the rungs the curve is linear. What lies outside the
sublayers (embeddings, the task's head) is what the whole model takes beyond the sum of its parts.

A table is kept on disk by all that decides it (`table_key`), since it does not depend on the weights.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pruning_core.arch.adapter import ModelAdapter
from pruning_core.arch.sublayer import BlockContext, Sublayer
from pruning_core.arch.units import UnitGroup
from pruning_core.budgets import CurveBudget
from pruning_core.errors import TargetUnreachable
from pruning_core.machine.finite import require_finite
from pruning_core.measure.latency import limited_threads, timed
from pruning_core.spec.prune import LatencySpec, LatencyTarget
from pruning_core.tasks.base import TaskModel

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

_WARM_UP = 2
_REPEATS = 7
_NEURON_RUNGS = 16
# Widths that are offered are multiples of this: kernels work in blocks, and the search is shorter.
_NEURON_STEP = 16
# A prediction this much above the target is no noise; below that, measuring the sliced model decides.
_DOUBT = 1.25
# The search rounds costs up to bins; the least budget must still admit the least model.
_ALL_BINS = 1.01

Curve = tuple[tuple[int, float], ...]
_Milliseconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class LatencyTable(BaseModel):
    """Milliseconds at one shape: of the whole dense model, and of one sublayer of each distinct group by units kept."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    total: _Milliseconds
    rungs: dict[str, tuple[tuple[int, _Milliseconds], ...]]


@dataclass(frozen=True, slots=True)
class LatencyModel:
    """The table, seen from one model's groups.

    Attributes:
        curves: Of each group the offered ``(units kept, milliseconds)``.
        fixed: Milliseconds outside the sublayers.
        total: Milliseconds of the dense model.
    """

    curves: tuple[Curve, ...]
    fixed: float
    total: float

    def budget(self, target: LatencyTarget, *, keep: float) -> CurveBudget:
        """Give the budget under which the predicted latency is ``keep`` of the dense model's, or the least there is.

        Raises:
            TargetUnreachable: Even the narrowest sublayers take far longer.
        """
        budget = CurveBudget(self.curves, keep * self.total - self.fixed)
        smallest = (budget.least + self.fixed) / self.total
        if smallest > target.keep * _DOUBT:
            raise TargetUnreachable(
                f"at this shape and on this device about {smallest:.2f} of the latency must be kept, got keep {target.keep}",
                param="target.keep",
            )
        return CurveBudget(self.curves, max(budget.limit, budget.least * _ALL_BINS))


def latency_model(model: TaskModel, adapter: ModelAdapter, spec: LatencySpec, cache: Path | None) -> LatencyModel:
    """Measure the table, or read it from the cache, and spread it over the model's groups.

    Args:
        model: The dense model.
        adapter: Its sublayers.
        spec: Shape and threads.
        cache: Folder of kept tables; created on demand. None measures every time.
    """
    key = table_key(model, adapter.groups, spec)
    path = None if cache is None else cache / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"
    table = None if path is None else _read(path)
    if table is None:
        table = _measure(model, adapter, spec)
        if path is not None:
            _write(path, table)
    curves = tuple(_curve(table.rungs[_shape(group)], group) for group in adapter.groups)
    return LatencyModel(curves, max(0.0, table.total - sum(curve[-1][1] for curve in curves)), table.total)


def _shape(group: UnitGroup) -> str:
    return f"{group.kind}/{group.size}/{group.unit_width}/{group.hidden}"


# Of a config: what names, explains or serves it, and decides no time.
_UNTIMED = frozenset({"_name_or_path", "architectures", "auto_map", "id2label", "label2id", "transformers_version"})


def table_key(model: TaskModel, groups: Sequence[UnitGroup], spec: LatencySpec) -> str:
    """Describe all that decides a table: what is not the same is measured again.

    The device, and what computes on it: torch and the libraries that it was built with, transformers, the attention kernel,
    the type of the weights and the precision of their products, on a CPU its threads. The model's class and config, the sizes
    of its groups, and of the rest the number of its parameters (vocabulary and head are part of the whole model's time). The
    shape of the input, as the model takes it.
    """
    on_cpu = model.device.type == "cpu"
    config = model.model.config
    facts = {
        "version": 2,
        "device": processor_name() if on_cpu else torch.cuda.get_device_name(model.device),
        "threads": spec.threads if on_cpu else None,
        "torch": [torch.__version__, torch.version.cuda, None if on_cpu else torch.backends.cudnn.version()],
        "transformers": version("transformers"),
        "attention": attention_kernel(config),
        "dtype": str(model.model.dtype),
        "products": [torch.get_float32_matmul_precision(), torch.backends.mkldnn.is_available()],
        "model": type(model.model).__name__,
        "config": {name: value for name, value in config.to_dict().items() if name not in _UNTIMED},
        "parameters": sum(own.numel() for own in model.model.parameters()),
        "groups": [_shape(group) for group in groups],
        "input": [spec.batch, model.input_length(spec.length)],
    }
    return json.dumps(facts, sort_keys=True, default=str)


def attention_kernel(config: PreTrainedConfig) -> list[str | None]:
    """Give the name of the attention kernel that a model was loaded with, and those of its parts with configs of their own."""
    parts = [config, *(getattr(config, name, None) for name in ("text_config", "vision_config", "encoder", "decoder"))]
    return [getattr(own, "_attn_implementation", None) for own in parts if own is not None]


def processor_name() -> str:
    """Give the name of the processor, as the kernel has it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor())


def _read(path: Path) -> LatencyTable | None:
    """Read a kept table; one that is missing or damaged is measured again."""
    try:
        return LatencyTable.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def _write(path: Path, table: LatencyTable) -> None:
    """Keep a table for the next run; a cache that cannot be written is no reason to fail."""
    partial = path.with_suffix(f".{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(table.model_dump_json(), encoding="utf-8")
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)


def _measure(model: TaskModel, adapter: ModelAdapter, spec: LatencySpec) -> LatencyTable:
    length = model.input_length(spec.length)
    inputs = model.family.random_inputs(model, spec.batch, length, torch.Generator().manual_seed(0))
    hidden_size = adapter.groups[0].hidden
    hidden = torch.randn(spec.batch, length, hidden_size, generator=torch.Generator().manual_seed(0)).to(model.device)
    distinct = {_shape(sublayer.group): sublayer for sublayer in adapter.sublayers}
    with torch.inference_mode(), limited_threads(spec.threads):
        contexts = adapter.trace(inputs).contexts

        def time(sublayer: Sublayer, units: int) -> float:
            found = _time_sublayer(_resized(sublayer, units), hidden, contexts[sublayer.layer])
            require_finite(found, f"the time of layer {sublayer.layer + 1} with {units} of its {sublayer.group.kind}s")
            return found

        rungs = {
            shape: tuple((units, time(sublayer, units)) for units in _ladder(sublayer.group))
            for shape, sublayer in distinct.items()
        }
        total = _fastest(lambda: model.outputs(inputs), model.device)
        require_finite(total, "the time of the dense model")
    return LatencyTable(total=total, rungs=rungs)


def _ladder(group: UnitGroup) -> list[int]:
    """Give the widths to time: every number of heads, and evenly spaced numbers of neurons with the empty FFN."""
    if group.kind == "head":
        return list(range(group.floor, group.size + 1))
    return sorted({max(group.floor, group.size * rung // _NEURON_RUNGS) for rung in range(_NEURON_RUNGS + 1)})


def _resized(sublayer: Sublayer, units: int) -> Sublayer:
    resized = sublayer.copied()
    resized.slice_(torch.arange(units, device=sublayer.output.weight.device))
    return resized


def _time_sublayer(sublayer: Sublayer, hidden: torch.Tensor, context: BlockContext) -> float:
    return _fastest(lambda: sublayer.forward(hidden, context), hidden.device)


def _fastest(forward: Callable[[], object], device: torch.device) -> float:
    """Give the least of several times: what other processes add to a clock is never negative."""
    return min([timed(forward, device) for _ in range(_WARM_UP + _REPEATS)][_WARM_UP:])


def _curve(rungs: Sequence[tuple[int, float]], group: UnitGroup) -> Curve:
    """Offer counts between the rungs, their cost interpolated and made monotone: a clock's noise must not pay for a unit."""
    step = 1 if group.kind == "head" else _NEURON_STEP
    offered = sorted({*range(group.floor, group.size + 1, step), group.size})
    curve: list[tuple[int, float]] = []
    for count in offered:
        upper = next(i for i, (units, _) in enumerate(rungs) if units >= count)
        (low, low_ms), (high, high_ms) = rungs[max(0, upper - 1)], rungs[upper]
        share = (count - low) / (high - low) if high > low else 1.0
        curve.append((count, max(low_ms + share * (high_ms - low_ms), curve[-1][1] if curve else 0.0)))
    return tuple(curve)
