"""Scores: per-sample gradients of the loss with respect to unit masks, and what follows from them.

Put a mask ``m_i`` on every head and neuron, at the input of the output projection. With ``X`` the masked activations,
``dL/dm_i = sum over tokens (and over the unit's columns) of X_i * dL/dX_i``. No parameter needs a gradient: the backward
pass runs over activations only. Importance is the diagonal empirical Fisher ``I_i = sum_s (dL_s/dm_i)^2`` (Kwon et al. 2022,
arXiv 2204.09656, eq. 4-6).

Deviations: gradients are per sample, the estimator that the theory asks for, where Kwon's code squares the means of
mini-batches. Without labels the loss is replaced by probes of the outputs whose expected square is the true Fisher, or its
Gauss-Newton form (`probe`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pruning_core.arch.adapter import ModelAdapter, real_tokens
from pruning_core.arch.linear import weight_of
from pruning_core.arch.paging import held
from pruning_core.arch.sublayer import Sublayer
from pruning_core.evidence.states import DenseStates
from pruning_core.machine.finite import require_finite
from pruning_core.machine.precision import products_in
from pruning_core.shapes import Bool, Float, Int
from pruning_core.spec.prune import TaskType
from pruning_core.tasks.base import TaskModel
from pruning_core.tasks.batch import Batch
from pruning_core.tasks.registry import family_of

Objective = Callable[[Float[Tensor, "b ..."], Batch], Float[Tensor, ""]]


def loss_sum(task_type: TaskType) -> Objective:
    """Give the task's loss with labels, summed over the samples of a batch: cross-entropy, or squared error."""
    family = family_of(task_type)
    return lambda outputs, batch: family.losses(outputs, batch).sum()


def probe(task_type: TaskType, generator: torch.Generator) -> Objective:
    """Give a probe of the outputs whose squared gradient estimates the label-free Fisher; see the families of tasks."""
    family = family_of(task_type)
    base = int(torch.randint(0, 2**40, (), generator=generator).item())
    return lambda outputs, batch: family.probes(outputs, batch, base).sum()


@dataclass(frozen=True, slots=True)
class MaskStatistics:
    """What one scoring pass knows of a sublayer's units; all on the CPU.

    Attributes:
        fisher: ``sum_s (dL_s/dm_i)^2``, the diagonal of the empirical Fisher information, (units,), float64.
        energy: ``sum over real tokens of ||x_i W_i||^2``, the energy of each unit's contribution to the residual stream,
            (units,), float64. A head's columns are summed, their cross terms left out.
        gradients: ``dL_s/dm_i``, (samples, units), float32; None where nobody asked for them.
    """

    fisher: Float[Tensor, " units"]
    energy: Float[Tensor, " units"]
    gradients: Float[Tensor, "samples units"] | None = None


def mask_statistics(
    task_model: TaskModel,
    adapter: ModelAdapter,
    batches: Sequence[Batch],
    objective: Objective,
    *,
    samples: int,
    dtype: torch.dtype,
    on_batch: Callable[[int], None],
    states: DenseStates | None = None,
    keep_gradients: bool = False,
) -> tuple[MaskStatistics, ...]:
    """Compute ``dL_s/dm_i`` for every sample and unit, with one forward and one activation-backward.

    Args:
        task_model: Dense model.
        adapter: Its sublayers.
        batches: Calibration batches.
        objective: Scalar of a batch whose per-sample terms are independent (no normalisation across a batch).
        samples: Total number of samples, the rows of the gradients.
        dtype: Format of matrix products.
        on_batch: Told after each batch how many are done.
        states: Records the dense model's states on the way.
        keep_gradients: Whether the gradients of every sample are kept beside the sum of their squares.

    Returns:
        The statistics of each sublayer.

    Raises:
        NotFinite: Activations, gradients or the objective are no finite numbers.
    """
    decodes = [adapter.crossing is not None and index >= adapter.crossing for index in range(len(adapter.sublayers))]
    most = max(_real(batch, own).numel() for batch in batches for own in set(decodes))
    widest = max(sublayer.width for sublayer in adapter.sublayers)
    scratch = torch.empty(most * widest, device=task_model.device)  # once: fresh memory costs more than what is written there
    watches = [_Watch(sublayer, samples if keep_gradients else 0, scratch) for sublayer in adapter.sublayers]
    for index, cpu_batch in enumerate(batches):
        batch = cpu_batch.to(task_model.device)
        first: list[Tensor] = []
        with ExitStack() as stack:
            for sublayer, watch, own in zip(adapter.sublayers, watches, decodes, strict=True):
                hook = watch.hook(batch.rows.cpu(), _real(batch, own), first)
                stack.callback(sublayer.output.register_forward_pre_hook(hook).remove)
            if states is not None:
                stack.enter_context(states.recording(index))
            with torch.enable_grad(), products_in(dtype, task_model.device):
                value = objective(task_model.outputs(batch.inputs).float(), batch)
            require_finite(value, f"the model's outputs on calibration batch {index}, by the objective that scores stand on")
            # Only the first sublayer's activations are asked for: the pass towards them goes through all the others,
            # whose hooks read their gradient as it passes, so that no more than one is alive at a time.
            torch.autograd.grad(value, first)
        on_batch(index + 1)
    found = tuple(watch.statistics() for watch in watches)
    _check(found, [adapter.paths[sublayer.output] for sublayer in adapter.sublayers])
    return found


def _check(statistics: Sequence[MaskStatistics], paths: Sequence[str]) -> None:
    """Check activations in the order of the forward pass and gradients in that of the backward pass: the first one is named.

    Gradients of single samples are finite where the sum of their squares is.
    """
    for own, path in zip(statistics, paths, strict=True):
        require_finite(own.energy, f"the activations that {path} reads on the calibration samples, times its weights")
    for own, path in reversed(list(zip(statistics, paths, strict=True))):
        require_finite(own.fisher, f"the scores of the units that {path} reads, squared gradients summed over the samples")


def _real(batch: Batch, decodes: bool) -> Bool[Tensor, "b s"]:
    return real_tokens(batch.inputs, batch.real.shape[1], decodes=True) if decodes else batch.real


class _Watch:
    """Adds up the statistics of one sublayer at the input of its output projection."""

    def __init__(self, sublayer: Sublayer, kept_samples: int, scratch: Tensor) -> None:
        self._scratch = scratch
        self._width = sublayer.unit_width
        with held(sublayer.block):
            self._column_norms = weight_of(sublayer.output).double().square().sum(0)
        self._energy = torch.zeros_like(self._column_norms)
        self._fisher = torch.zeros(sublayer.units, dtype=torch.float64, device=scratch.device)
        self._gradients = torch.zeros(kept_samples, sublayer.units) if kept_samples else None

    def statistics(self) -> MaskStatistics:
        energy = self._energy * self._column_norms
        return MaskStatistics(self._fisher.cpu(), energy.unflatten(0, (-1, self._width)).sum(1).cpu(), self._gradients)

    def hook(
        self, rows: Int[Tensor, " b"], mask: Bool[Tensor, "b s"], first: list[Tensor]
    ) -> Callable[[nn.Module, tuple[Tensor, ...]], tuple[Tensor, ...]]:
        """Make a forward pre-hook for one batch; the first one of a pass is where the backward pass ends."""
        real = mask.flatten().float()

        def read(values: Tensor, grad: Tensor) -> None:
            by_sample = (values * grad).view(len(rows), -1, values.shape[-1])  # some models lay all tokens in one row
            own = by_sample.sum(1, dtype=torch.float32).unflatten(-1, (-1, self._width)).sum(-1)
            self._fisher += own.double().square().sum(0)
            if self._gradients is not None:
                self._gradients[rows] = own.cpu()

        def enter(_module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            features = args[0]
            if not features.requires_grad:
                features = features.detach().requires_grad_()
                first.append(features)
            values = features.detach()
            # A product with the mask of real tokens: a norm over the rows takes ten times as long.
            squares = self._scratch[: values.numel()].view(len(real), -1)
            self._energy += torch.mv(squares.copy_(values.view(len(real), -1)).square_().T, real)

            def at_gradient(grad: Tensor) -> None:
                read(values, grad)

            features.register_hook(at_gradient)
            return (features, *args[1:])

        return enter


def importance(statistics: Sequence[MaskStatistics], *, representation: float = 0.0) -> tuple[Float[Tensor, " units"], ...]:
    """Give the importance of every unit, float64.

    ``I_i = sum_s (dL_s/dm_i)^2``, the diagonal of the Fisher information of the masks, divided by its sum over the model. To it
    is added ``representation`` times the unit's share of its sublayer's output energy, likewise divided by its sum over the
    model (which is the number of sublayers): what the loss does not feel at the dense point still has to be imitated once much
    is gone (K-prune, Park et al. 2024, arXiv 2308.03449, section 4.1, calls it representational knowledge). Both terms being
    shares, their balance does not depend on the scale of the loss.
    """
    fisher = [own.fisher for own in statistics]
    total = sum(float(scores.sum()) for scores in fisher) or 1.0
    scaled = [scores / total for scores in fisher]
    if representation == 0:
        return tuple(scaled)
    weight = representation / len(statistics)
    return tuple(
        scores + weight * own.energy / own.energy.sum().clamp_min(torch.finfo(torch.float64).tiny)
        for scores, own in zip(scaled, statistics, strict=True)
    )
