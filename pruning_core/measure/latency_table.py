"""Latency tables: the milliseconds of sublayers at every width, measured on the present device. Latency targets rest on them.

Half of a sublayer's units do not take half of its time: kernels have fixed costs, and norms and residual sums stay. So one
sublayer of each shape is sliced to a ladder of widths, each of which is timed. Between these rungs the curve is linear. The
time outside the sublayers (embeddings, the task's head) is the time of the whole model less the sum of its sublayers.

A table does not depend on the weights. It is cached on disk under a key of all facts that decide it (`table_key`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import torch
from pydantic import BaseModel, ConfigDict, Field

from pruning_core.arch.adapter import ModelAdapter
from pruning_core.arch.sublayer import BlockContext, Sublayer
from pruning_core.arch.unit_costs import UnitGroup
from pruning_core.budgets import CurveBudget
from pruning_core.engines.limits import Limits
from pruning_core.errors import TargetUnreachable
from pruning_core.machine.environment import processor_name
from pruning_core.machine.finite import require_finite
from pruning_core.machine.timing import timed
from pruning_core.measure.kept import read_kept, write_kept
from pruning_core.measure.latency import limited_threads
from pruning_core.spec.prune import LatencySpec
from pruning_core.spec.targets import LatencyTarget
from pruning_core.tasks.base import TaskModel

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

_WARM_UP = 2
_REPEATS = 7
_NEURON_RUNGS = 16
# Offered numbers of neurons are multiples of this: kernels work in blocks, and the search is shorter.
_NEURON_STEP = 16
# A prediction that exceeds the target by this factor is not noise. Below it, the measurement of the sliced model decides.
_DOUBT = 1.25
# The search rounds costs up to bins. With this factor, the smallest budget still admits the smallest model.
_ALL_BINS = 1.01

Curve = tuple[tuple[int, float], ...]
_Milliseconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class LatencyTable(BaseModel):
    """Milliseconds at one input shape.

    Attributes:
        total: Milliseconds of the whole dense model.
        rungs: For each distinct shape of a group, the milliseconds of a sublayer by its number of kept units.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    total: _Milliseconds
    rungs: dict[str, tuple[tuple[int, _Milliseconds], ...]]


@dataclass(frozen=True, slots=True)
class LatencyModel:
    """Predicted latency of one model, from a latency table.

    Attributes:
        curves: Cost curve of each group: the offered ``(kept units, milliseconds)``.
        fixed: Milliseconds outside the sublayers.
        total: Milliseconds of the dense model.
    """

    curves: tuple[Curve, ...]
    fixed: float
    total: float

    def budget(self, target: LatencyTarget, *, keep: float) -> CurveBudget:
        """Return the budget for a predicted latency of ``keep`` times the dense model's, or for the smallest possible one.

        Args:
            target: The requested target.
            keep: Share of the dense latency to plan for, which may differ from the target's.

        Raises:
            TargetUnreachable: Even the narrowest sublayers take far longer than the target.
        """
        budget = CurveBudget(self.curves, keep * self.total - self.fixed)
        smallest = (budget.least + self.fixed) / self.total
        if smallest > target.keep * _DOUBT:
            raise TargetUnreachable(
                f"at this shape and on this device about {smallest:.2f} of the latency must be kept, got keep {target.keep}",
                param="target.keep",
            )
        return CurveBudget(self.curves, max(budget.limit, budget.least * _ALL_BINS))


def latency_model(
    model: TaskModel, adapter: ModelAdapter, spec: LatencySpec, cache: Path | None, limits: Limits | None = None
) -> LatencyModel:
    """Make the latency model from a table that is read from the cache or measured.

    Args:
        model: The dense model.
        adapter: The dense model's adapter.
        spec: Input shape and number of threads.
        cache: Folder of cached tables, created on demand. None: always measure.
        limits: What engines can hold: a sublayer that may be absent takes no time then.
    """
    key = table_key(model, adapter.groups, spec)
    path = None if cache is None else cache / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"
    table = None if path is None else read_kept(path, LatencyTable)
    if table is None:
        table = _measure(model, adapter, spec)
        if path is not None:
            write_kept(path, table)
    curves = tuple(_curve(table.rungs[_shape(group)], group) for group in adapter.groups)
    fixed = max(0.0, table.total - sum(curve[-1][1] for curve in curves))
    if limits is not None:
        curves = tuple(
            ((0, 0.0), *curve) if limits.may_lack(group) else curve for curve, group in zip(curves, adapter.groups, strict=True)
        )
    return LatencyModel(curves, fixed, table.total)


def _shape(group: UnitGroup) -> str:
    return f"{group.kind}/{group.size}/{group.unit_width}/{group.hidden}"


# Fields of a config that do not change the time of a forward pass: names, labels and versions.
UNTIMED = frozenset({"_name_or_path", "architectures", "auto_map", "id2label", "label2id", "transformers_version"})


def table_key(model: TaskModel, groups: Sequence[UnitGroup], spec: LatencySpec) -> str:
    """Return the facts that decide a latency table, as JSON. If one of them changes, the table is measured again.

    Hardware and software: the device, on a CPU the number of threads, torch and the libraries that it was built with,
    transformers, the attention kernel, the data type of the weights and the precision of their products. The model: its class
    and config, the shapes of its groups, and its number of parameters, since vocabulary and head take time too. The input: its
    shape as the model takes it.
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
        "config": {name: value for name, value in config.to_dict().items() if name not in UNTIMED},
        "parameters": sum(own.numel() for own in model.model.parameters()),
        "groups": [_shape(group) for group in groups],
        "input": [spec.batch, model.input_length(spec.length)],
    }
    return json.dumps(facts, sort_keys=True, default=str)


def attention_kernel(config: PreTrainedConfig) -> list[str | None]:
    """Return the names of the attention kernels that a model, and its parts with configs of their own, were loaded with."""
    parts = [config, *(getattr(config, name, None) for name in ("text_config", "vision_config", "encoder", "decoder"))]
    return [getattr(own, "_attn_implementation", None) for own in parts if own is not None]


def _measure(model: TaskModel, adapter: ModelAdapter, spec: LatencySpec) -> LatencyTable:
    length = model.input_length(spec.length)
    inputs = model.family.random_inputs(model, spec.batch, length, torch.Generator().manual_seed(0))
    hidden_size = adapter.groups[0].hidden
    hidden = torch.randn(spec.batch, length, hidden_size, generator=torch.Generator().manual_seed(0)).to(model.device)
    distinct = {_shape(sublayer.group): sublayer for sublayer in adapter.sublayers}
    with torch.inference_mode(), limited_threads(spec.threads):
        contexts = adapter.trace(inputs).contexts

        def time(sublayer: Sublayer, units: int) -> float:
            found = sublayer.times * _time_sublayer(_resized(sublayer, units), hidden, contexts[sublayer.layer])
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
    """Return the widths to time: every number of heads, or evenly spaced numbers of neurons with the empty FFN."""
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
    """Return the smallest of several times, since other processes can only make a call slower."""
    return min([timed(forward, device) for _ in range(_WARM_UP + _REPEATS)][_WARM_UP:])


def _curve(rungs: Sequence[tuple[int, float]], group: UnitGroup) -> Curve:
    """Return the cost curve of a group: counts on and between the rungs, with interpolated costs.

    The curve is made monotone, so that noise of the clock never makes more units cheaper than fewer.
    """
    step = 1 if group.kind == "head" else _NEURON_STEP
    offered = sorted({*range(group.floor, group.size + 1, step), group.size})
    curve: list[tuple[int, float]] = []
    for count in offered:
        upper = next(i for i, (units, _) in enumerate(rungs) if units >= count)
        (low, low_ms), (high, high_ms) = rungs[max(0, upper - 1)], rungs[upper]
        share = (count - low) / (high - low) if high > low else 1.0
        curve.append((count, max(low_ms + share * (high_ms - low_ms), curve[-1][1] if curve else 0.0)))
    return tuple(curve)
