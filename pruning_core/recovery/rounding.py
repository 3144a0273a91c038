"""Rounding of a repaired student: matrix by matrix, each to the type that was chosen for it, with errors compensated.

The Gram of a matrix's inputs is that of the student itself on the calibration samples. Matrices are taken in the order in which
the model runs, as many at a time as their Grams have room; those that follow read what the rounded ones before them give.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from pruning_core.arch.linear import is_transposed
from pruning_core.linalg.rounding import Rounded, round_compensated, round_nearest
from pruning_core.spec.storage import STORAGE_TYPES, StorageName
from pruning_core.stats.rounding import matrix_of, storable
from pruning_core.tasks.base import TaskModel
from pruning_core.tasks.batch import Batch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Room for the Grams that are summed up in one pass.
_ROOM_BYTES = 2**30


def round_(
    student: PreTrainedModel,
    types: Mapping[str, StorageName],
    task_model: TaskModel,
    batches: Sequence[Batch],
    *,
    on_matrix: Callable[[int], None],
) -> dict[str, Rounded]:
    """Round matrices of a student, in place: afterwards it computes with what will be read back.

    Args:
        student: The pruned and repaired model.
        types: Storage types by module path; matrices of floating-point numbers stay as they are.
        task_model: The dense model, for the task that runs the student.
        batches: Calibration batches.
        on_matrix: Called after each matrix with the number done.

    Returns:
        The rounded matrices by module path, output-major.
    """
    modules = storable(student)
    wanted: dict[str, StorageName] = {
        path: kind for path, kind in types.items() if STORAGE_TYPES[kind].bits is not None and path in modules
    }
    found: dict[str, Rounded] = {}
    with torch.no_grad():
        for path, kind in wanted.items():
            if isinstance(modules[path], nn.Embedding):
                found[path] = _set_(modules[path], kind, None)
                on_matrix(len(found))
        linears = [path for path in wanted if path not in found]
        while linears:
            chunk = _fitting(linears, modules)
            grams = _grams(task_model.with_model(student), {path: modules[path] for path in chunk}, batches)
            for path in chunk:
                found[path] = _set_(modules[path], wanted[path], grams.pop(path))
                on_matrix(len(found))
            linears = linears[len(chunk) :]
    return found


def _fitting(paths: Sequence[str], modules: Mapping[str, nn.Module]) -> list[str]:
    """Return the first matrices whose Grams fit the room, at least one."""
    taken, size = [paths[0]], matrix_of(modules[paths[0]]).shape[1] ** 2 * 4
    for path in paths[1:]:
        size += matrix_of(modules[path]).shape[1] ** 2 * 4
        if size > _ROOM_BYTES:
            break
        taken.append(path)
    return taken


def _grams(task_model: TaskModel, modules: Mapping[str, nn.Module], batches: Sequence[Batch]) -> dict[str, Tensor]:
    """Sum up the Grams of what modules read, over real tokens where a module reads the model's own tokens."""
    device = task_model.device
    found = {path: torch.zeros(2 * (matrix_of(own).shape[1],), device=device) for path, own in modules.items()}
    real: list[Tensor] = []

    def watch(path: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def enter(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
            read = args[0]
            rows = read.reshape(-1, read.shape[-1]).float()
            if rows.shape[0] == real[0].numel():
                rows = rows[real[0].flatten()]
            found[path].addmm_(rows.T, rows)

        return enter

    with ExitStack() as stack:
        for path, module in modules.items():
            stack.callback(module.register_forward_pre_hook(watch(path)).remove)
        for cpu_batch in batches:
            batch = cpu_batch.to(device)
            real[:] = [batch.real]
            task_model.outputs(batch.inputs)
    return found


def _set_(module: nn.Module, kind: StorageName, gram: Tensor | None) -> Rounded:
    """Round a module's matrix, and put what will be read back in its place."""
    own, weight = STORAGE_TYPES[kind], matrix_of(module).float()
    assert own.bits is not None, "only types of integers round"
    group = own.group or weight.shape[1]
    rounded = round_nearest(weight, own.bits, group) if gram is None else round_compensated(weight, gram, own.bits, group)
    stored = cast("Tensor", module.weight)
    stored.copy_(rounded.weight.T if is_transposed(module) else rounded.weight)
    return rounded
