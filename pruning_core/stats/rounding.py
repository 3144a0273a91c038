"""What the rounding of each matrix costs, in the currency of the scores of units: shares of the model's Fisher information.

Rounding moves a matrix by ``D``, and a sample's loss by ``<dL_s/dW, D> = sum over tokens of g_t . (D x_t)`` to first order,
with the matrix's input ``x_t`` and the objective's gradient ``g_t`` by its output. The loss of the rounding is the sum of the
squares over the samples, as that of a unit is ``sum_s (dL_s/dm_i)^2`` (`stats.fisher`): a unit that goes moves weights, too.
Both are divided by the sum over the model's units. To this, scores add a share of output energy, here that of the error:
``|| X D^T ||^2 / || X W^T ||^2``.

The rounding is that to the nearest value, and the units are those before the repair: what repair and compensation win back
later is left out on both sides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from pruning_core.arch.adapter import ModelAdapter
from pruning_core.arch.linear import is_linear, is_transposed
from pruning_core.arch.paging import first_names
from pruning_core.linalg.rounding import round_nearest
from pruning_core.spec.storage import LEAST_WEIGHTS, STORAGE_TYPES, StorageName
from pruning_core.stats.fisher import Objective
from pruning_core.tasks.base import TaskModel
from pruning_core.tasks.batch import Batch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Samples that the losses are estimated on: the mean of so many squares is known to a tenth.
_MOST_SAMPLES = 256

Losses = Mapping[str, Mapping[StorageName, float]]


def storable(model: PreTrainedModel) -> dict[str, nn.Module]:
    """Return the linear layers and embeddings whose matrices may be stored as integers, by module path.

    Of modules that share a matrix only the first is listed, under whose name it is stored.
    """
    first = first_names(model)
    return {
        name: module
        for name, module in model.named_modules()
        if (is_linear(module) or type(module) is nn.Embedding)
        and f"{name}.weight" in first
        and first[f"{name}.weight"] == f"{name}.weight"
        and cast("Tensor", module.weight).numel() >= LEAST_WEIGHTS
    }


def matrix_of(module: nn.Module) -> Tensor:
    """Return a module's matrix, output-major; of an embedding, one row for each entry."""
    weight = cast("Tensor", module.weight).detach()
    return weight.T if is_transposed(module) else weight


@dataclass(slots=True)
class _Move:
    """The move of a matrix by one type, and what was summed up of it."""

    by: Tensor
    squares: float = 0.0
    energy: float = 0.0


class _Watch:
    """Sums over one matrix, which may serve several modules (tied embeddings)."""

    def __init__(self, weight: Tensor, types: Sequence[StorageName]) -> None:
        self.weight = weight
        self.energy = 0.0
        self.moves: dict[StorageName, _Move] = {}
        for name in types:
            kind = STORAGE_TYPES[name]
            if kind.bits is not None:
                rounded = round_nearest(weight.float(), kind.bits, kind.group or weight.shape[1])
                self.moves[name] = _Move(rounded.weight - weight)
        self._sums: dict[StorageName, Tensor] = {}

    def add_(self, name: StorageName, by_sample: Tensor) -> None:
        self._sums[name] = self._sums[name] + by_sample if name in self._sums else by_sample

    def close_(self) -> None:
        """End a batch: square each sample's sum over all modules."""
        for name, values in self._sums.items():
            self.moves[name].squares += float(values.double().square().sum())
        self._sums = {}


def rounding_losses(
    task_model: TaskModel,
    adapter: ModelAdapter,
    batches: Sequence[Batch],
    objective: Objective,
    types: Sequence[StorageName],
    *,
    representation: float,
    on_batch: Callable[[int], None],
) -> Losses:
    """Estimate the loss by the rounding of each matrix to each type.

    Args:
        task_model: The dense model.
        adapter: Its adapter.
        batches: Calibration batches; the first of them are used.
        objective: As for `mask_statistics`.
        types: The types.
        representation: Weight of the share of output energy, as for `importance`.
        on_batch: Called after each batch with the number of finished batches.

    Returns:
        Losses by module path and type, in shares of the model's Fisher information.

    Cost: one forward and one backward pass over activations, and a product for every matrix and type that rounds.
    """
    model = task_model.model
    modules = storable(model)
    watches = {path: _Watch(matrix_of(module), types) for path, module in modules.items()}
    if not watches:
        return {}
    first = first_names(model)
    serving = [
        (module, watches[own])
        for name, module in model.named_modules()
        if (own := first.get(f"{name}.weight", "").removesuffix(".weight")) in watches
    ]
    units = _Units()
    for number, cpu_batch in enumerate(_some(batches)):
        batch = cpu_batch.to(task_model.device)
        leaves: list[Tensor] = []
        with ExitStack() as stack, torch.enable_grad():
            for module, watch in serving:
                stack.callback(module.register_forward_hook(_hook(module, watch, len(batch.rows), leaves)).remove)
            for sublayer in adapter.sublayers:
                hook = units.hook(sublayer.unit_width, len(batch.rows), sublayer.times)
                stack.callback(sublayer.output.register_forward_pre_hook(hook).remove)
            value = objective(task_model.outputs(batch.inputs).float(), batch)
            torch.autograd.grad(value, leaves, allow_unused=True)
        for watch in watches.values():
            watch.close_()
        on_batch(number + 1)
    total = units.total or 1.0
    weight = representation / max(len(adapter.sublayers), 1)
    found: dict[str, dict[StorageName, float]] = {}
    for path, watch in watches.items():
        found[path] = dict.fromkeys(types, 0.0)
        for name, move in watch.moves.items():
            found[path][name] = move.squares / total + weight * move.energy / (watch.energy or 1.0)
    return found


def _some(batches: Sequence[Batch]) -> Iterator[Batch]:
    seen = 0
    for batch in batches:
        if seen >= _MOST_SAMPLES:
            return
        seen += len(batch.rows)
        yield batch


class _Units:
    """The sum of the Fisher information of all units' masks, on the same samples."""

    def __init__(self) -> None:
        self.total = 0.0

    def hook(self, width: int, samples: int, times: int) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        runs: list[Tensor] = []  # one where each layer has units of its own

        def enter(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
            values = args[0].detach()

            def at_gradient(grad: Tensor) -> None:
                runs.append((values * grad).view(samples, -1, values.shape[-1]).sum(1).unflatten(-1, (-1, width)).sum(-1))
                if len(runs) == times:
                    self.total += float(torch.stack(runs).sum(0).double().square().sum())

            if args[0].requires_grad:
                args[0].register_hook(at_gradient)

        return enter


def _hook(
    module: nn.Module, watch: _Watch, samples: int, leaves: list[Tensor]
) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
    """Return a forward hook that sums up what a module's output and loss would move by."""

    def leave(_module: nn.Module, args: tuple[Tensor, ...], found: Tensor) -> Tensor:
        output = found
        if not output.requires_grad:
            output = output.detach().requires_grad_()
            leaves.append(output)
        given = args[0].detach()
        with torch.no_grad():
            watch.energy += float(found.detach().double().square().sum())

        def at_gradient(grad: Tensor) -> None:
            for name, move in watch.moves.items():
                by = move.by[given] if isinstance(module, nn.Embedding) else given @ move.by.T
                move.energy += float(by.double().square().sum())
                watch.add_(name, _by_sample(by * grad, samples))

        output.register_hook(at_gradient)
        return output

    return leave


def _by_sample(values: Tensor, samples: int) -> Tensor:
    """Sum over tokens and values. What has one row for all samples, such as positions, counts for each of them alike."""
    if values.shape[0] % samples and values.numel() % samples:
        return values.sum().expand(samples) / samples
    if values.shape[0] == 1 and samples > 1:
        return values.sum().expand(samples) / samples
    return values.reshape(samples, -1).sum(1)
