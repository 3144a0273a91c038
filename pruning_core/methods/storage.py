"""Plans for a target in bytes: widths and storage types from the same statistics (`search.storage`)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from pruning_core.arch.linear import bias_of
from pruning_core.errors import PruningError
from pruning_core.evidence.context import Context
from pruning_core.machine.precision import products_in
from pruning_core.methods.base import Applied
from pruning_core.methods.unit_plan import UnitPlan
from pruning_core.recovery.rounding import round_
from pruning_core.report.report import Outcome
from pruning_core.search.storage import Allocation, Matrix, Stock, Types, allocate
from pruning_core.shapes import Float
from pruning_core.spec.artifacts import ArtifactSpec, Layout
from pruning_core.spec.prune import PruneSpec
from pruning_core.spec.storage import STORAGE_TYPES, StorageName
from pruning_core.spec.targets import BytesTarget
from pruning_core.stats.fisher import probe
from pruning_core.stats.rounding import Losses, matrix_of, rounding_losses, storable

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Bytes of a tensor's entry in the header of a weight file beside its name, and of the rest of the header.
_ENTRY, _HEADER = 110, 4096


@dataclass(frozen=True)
class StoragePlan(UnitPlan):
    """A plan that cuts units, repairs the rest, and rounds matrices to their storage types after everything else.

    Attributes:
        types: Storage types by module path.
        ctx: The run, whose calibration samples the rounding reads.
    """

    types: Types = dataclasses.field(default_factory=dict)
    ctx: Context | None = None

    def finish_(self, student: PreTrainedModel, applied: Applied, layout: Layout) -> Applied:
        """Round the student."""
        del layout
        assert self.ctx is not None, "the planner gives it"
        wanted = sum(STORAGE_TYPES[kind].bits is not None for kind in self.types.values())
        if not wanted:
            return applied
        ctx, device = self.ctx, student.device
        with ctx.clock.stage("recover", wanted) as step, products_in(ctx.evidence.dtype, device):
            batches = ctx.evidence.calibration.batches
            rounded = round_(student, self.types, ctx.task_model, batches, on_matrix=step)
        return dataclasses.replace(applied, rounded=rounded)

    def hints(self, outcome: Outcome) -> list[str]:
        """Say what integers save and what they do not."""
        found = super().hints(outcome)
        if outcome.storage is not None:
            found.append(
                f"{outcome.storage.words}: integers save bytes on the disk and on their way; once loaded, the weights are "
                "ordinary floating-point numbers, and the model takes the memory and the time of its widths"
            )
        return found


class StoragePlanner:
    """Finds widths and types for targets in bytes. The losses by rounding are gathered once, when a target first needs them."""

    def __init__(self, spec: PruneSpec, ctx: Context, importance: Sequence[Float[Tensor, " units"]]) -> None:
        """Keep the scores of the units, which are shares of the model's Fisher information."""
        self._spec, self._ctx, self._importance = spec, ctx, importance
        self._losses: Losses | None = None

    def plan(self, target: BytesTarget) -> StoragePlan:
        """Plan for a target.

        Raises:
            TargetUnreachable: Not even the smallest widths and types fit.
        """
        found = self.allocation(target)
        return StoragePlan(found.mask, types=found.types, ctx=self._ctx)

    def allocation(self, target: BytesTarget) -> Allocation:
        """Find widths and types for a target; errors as of `plan`."""
        if self._ctx.task_model.pages is not None:
            raise PruningError(
                "a target in bytes rounds all of a model at once, and this one is larger than the memory: take a machine with "
                "more, or another target",
                param="target",
            )
        stock = stock_of(self._ctx, self._spec.artifacts, self._rounding())
        with self._ctx.clock.stage("search"):
            cuts = target.widths == "choose"
            return allocate(self._importance, self._ctx.groups, stock, target.at_most, target.types, cuts=cuts)

    def _rounding(self) -> Losses:
        if self._losses is None:
            ctx, batches = self._ctx, self._ctx.evidence.calibration.batches
            task_model = ctx.task_model
            with ctx.clock.stage("score", len(batches)) as step, products_in(torch.float32, task_model.device):
                self._losses = rounding_losses(
                    task_model,
                    ctx.evidence.dense,
                    batches,
                    probe(task_model.task_type, ctx.generator("probe")),
                    tuple(STORAGE_TYPES),
                    representation=float(getattr(self._spec.method, "representation", 0.0)),
                    on_batch=step,
                )
        return self._losses


def stored_options(options: ArtifactSpec, dense_dtype: str) -> ArtifactSpec:
    """Return the options of a checkpoint under a budget of bytes: its floats have two bytes, unless another type was named."""
    return options.but(dtype="bfloat16" if dense_dtype == "bfloat16" else "float16") if options.dtype == "auto" else options


def stock_of(ctx: Context, options: ArtifactSpec, losses: Losses) -> Stock:
    """Describe what a checkpoint of the dense model stores."""
    dense, model = ctx.evidence.dense, ctx.task_model.model
    dtype: torch.dtype = getattr(torch, stored_options(options, ctx.task_model.stored_dtype).dtype)
    width, modules = dtype.itemsize, storable(model)
    places: dict[str, tuple[int, Literal["rows", "columns"]]] = {}
    unit_bytes: list[int] = []
    for index, sublayer in enumerate(dense.sublayers):
        if sublayer.signature.mixture is not None:  # its matrices are stored as floats
            unit_bytes.append(sublayer.group.params_per_unit * width)
            continue
        beside = sublayer.width * len(sublayer.signature.vectors)
        units = max(sublayer.units, 1)
        for linear in (*(part.linear for part in (*sublayer.parts, *sublayer.followers)), sublayer.output):
            path = dense.paths[linear]
            if path in modules:
                places[path] = index, "columns" if linear is sublayer.output else "rows"
            else:
                beside += matrix_of(linear).numel()
            if linear is not sublayer.output and (bias := bias_of(linear)) is not None:
                beside += bias.numel()
        unit_bytes.append(beside * width // units)
    matrices = [_matrix(path, matrix_of(module), places.get(path), losses[path]) for path, module in modules.items()]
    counted = sum(own.nbytes("float", 1.0, width) for own in matrices)
    counted += sum(own * group.size for own, group in zip(unit_bytes, dense.groups, strict=True))
    names = list(model.state_dict())
    header = _HEADER + sum(len(name) + _ENTRY for name in names) + sum(len(path) + _ENTRY + 20 for path in modules)
    return Stock(matrices, ctx.task_model.parameter_count() * width - counted + header, unit_bytes, width)


def _matrix(
    path: str, weight: Tensor, place: tuple[int, Literal["rows", "columns"]] | None, losses: Mapping[StorageName, float]
) -> Matrix:
    outputs, inputs = weight.shape
    group, cut = (None, None) if place is None else place
    return Matrix(path, outputs, inputs, group, cut, losses)
