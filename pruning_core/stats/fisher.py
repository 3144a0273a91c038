"""Unit scores from per-sample gradients of the loss with respect to unit masks.

Put a mask ``m_i`` on every head and neuron, at the input of the output projection. With ``X`` the masked activations,
``dL/dm_i = sum over tokens (and over the unit's columns) of X_i * dL/dX_i``. No parameter needs a gradient: the backward
pass runs over activations only. Importance is the diagonal empirical Fisher ``I_i = sum_s (dL_s/dm_i)^2`` (Kwon et al. 2022,
arXiv 2204.09656, eq. 4-6).

Deviations: (1) Gradients are per sample, as the theory asks; Kwon's code squares the means of mini-batches. (2) Without
labels, probes of the outputs replace the loss. The expected square of a probe's gradient is the true Fisher, or its
Gauss-Newton form (`probe`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Literal

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
    """Return the task's loss against the labels, summed over the samples of a batch: cross-entropy, or squared error."""
    family = family_of(task_type)
    return lambda outputs, batch: family.losses(outputs, batch).sum()


def probe(task_type: TaskType, generator: torch.Generator) -> Objective:
    """Return a probe of the outputs whose squared gradient estimates the Fisher without labels; see `TaskFamily.probes`."""
    family = family_of(task_type)
    base = int(torch.randint(0, 2**40, (), generator=generator).item())
    return lambda outputs, batch: family.probes(outputs, batch, base).sum()


@dataclass(frozen=True, slots=True)
class Factors:
    """Both factors of the Kronecker-factored curvature of a sublayer's output projection, on the model's device, float32.

    Attributes:
        inputs: Sum of the outer products of its inputs over real tokens, (k, k).
        outputs: Sum of the outer products of the objective's gradient by its outputs over real tokens, (d, d).
        tokens: Number of real tokens.
    """

    inputs: Float[Tensor, "k k"]
    outputs: Float[Tensor, "d d"]
    tokens: int


@dataclass(frozen=True, slots=True)
class Routed:
    """What the experts of a mixture do with the real tokens that pass through them, (experts,), float64.

    Attributes:
        tokens: Number of these tokens.
        added: Sum over them of ``||g_e(x) f_e(x)||``, the length of what an expert adds to a token, its gate included.
    """

    tokens: Float[Tensor, " units"]
    added: Float[Tensor, " units"]


@dataclass(frozen=True, slots=True)
class MaskStatistics:
    """Statistics of a sublayer's units from one scoring pass, on the CPU.

    Attributes:
        fisher: ``sum_s (dL_s/dm_i)^2``, the diagonal of the empirical Fisher information, (units,), float64.
        energy: ``sum over real tokens of ||x_i W_i||^2``, the energy of each unit's contribution to the residual stream,
            (units,), float64. For a head it is the sum over its columns, without their cross terms.
        gradients: ``dL_s/dm_i``, (samples, units), float32; None if they were not requested.
        factors: Factors of the curvature of the sublayer's output projection; None if they were not requested.
        routed: Of a mixture of experts, what they do with their tokens; None for other sublayers.
    """

    fisher: Float[Tensor, " units"]
    energy: Float[Tensor, " units"]
    gradients: Float[Tensor, "samples units"] | None = None
    factors: Factors | None = None
    routed: Routed | None = None


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
    keep_factors: bool = False,
) -> tuple[MaskStatistics, ...]:
    """Compute ``dL_s/dm_i`` for every sample and unit, with one forward and one activation-backward pass.

    Args:
        task_model: The dense model.
        adapter: The dense model's adapter.
        batches: Calibration batches.
        objective: Scalar of a batch whose per-sample terms are independent (no normalisation across a batch).
        samples: Total number of samples: the number of rows of the gradients.
        dtype: Data type of matrix products.
        on_batch: Called after each batch with the number of finished batches.
        states: Recorder of the dense model's hidden states during this pass; None records none.
        keep_gradients: Whether to keep the gradients of every sample beside the sum of their squares.
        keep_factors: Whether to sum up the factors of the curvature of every output projection.

    Returns:
        The statistics of each sublayer.

    Raises:
        NotFinite: Activations, gradients or the objective are NaN or infinite.
    """
    decodes = [adapter.crossing is not None and index >= adapter.crossing for index in range(len(adapter.sublayers))]
    most = max(_real(batch, own).numel() for batch in batches for own in set(decodes))
    widest = max(sublayer.width for sublayer in adapter.sublayers)
    scratch = torch.empty(most * widest, device=task_model.device)  # allocated once: fresh memory costs more than writing to it
    watches = [_Watch(sublayer, samples if keep_gradients else 0, keep_factors, scratch) for sublayer in adapter.sublayers]
    for index, cpu_batch in enumerate(batches):
        batch = cpu_batch.to(task_model.device)
        first: list[Tensor] = []
        with ExitStack() as stack:
            for sublayer, watch, own in zip(adapter.sublayers, watches, decodes, strict=True):
                hook = watch.hook(batch.rows.cpu(), _real(batch, own), first)
                stack.callback(sublayer.output.register_forward_pre_hook(hook).remove)
                if keep_factors:
                    stack.callback(sublayer.output.register_forward_hook(watch.factors_hook(_real(batch, own))).remove)
            if states is not None:
                stack.enter_context(states.recording(index))
            with torch.enable_grad(), products_in(dtype, task_model.device):
                value = objective(task_model.outputs(batch.inputs).float(), batch)
            require_finite(value, f"the model's outputs on calibration batch {index}, by the objective that scores stand on")
            # Only the gradient of the first sublayer's activations is requested. The backward pass towards them runs through
            # all other sublayers, whose hooks read their gradients in passing: no more than one is alive at a time.
            torch.autograd.grad(value, first)
        on_batch(index + 1)
    found = tuple(watch.statistics() for watch in watches)
    _check(found, [adapter.paths[sublayer.output] for sublayer in adapter.sublayers])
    return found


def _check(statistics: Sequence[MaskStatistics], paths: Sequence[str]) -> None:
    """Check that the statistics are finite; the error names the first sublayer where they are not.

    Activations are checked in the order of the forward pass, gradients in that of the backward pass. Gradients of single
    samples are finite if the sum of their squares is.

    Raises:
        NotFinite: A statistic is NaN or infinite.
    """
    for own, path in zip(statistics, paths, strict=True):
        require_finite(own.energy, f"the activations that {path} reads on the calibration samples, times its weights")
    for own, path in reversed(list(zip(statistics, paths, strict=True))):
        require_finite(own.fisher, f"the scores of the units that {path} reads, squared gradients summed over the samples")


def _real(batch: Batch, decodes: bool) -> Bool[Tensor, "b s"]:
    return real_tokens(batch.inputs, batch.real.shape[1], decodes=True) if decodes else batch.real


class _Watch:
    """Accumulator of one sublayer's statistics, at the input of its output projection."""

    def __init__(self, sublayer: Sublayer, kept_samples: int, keep_factors: bool, scratch: Tensor) -> None:
        self._scratch = scratch
        self._width, self._times = sublayer.unit_width, sublayer.times
        with held(sublayer.block):
            self._column_norms = weight_of(sublayer.output).double().square().sum(0)
        self._energy = torch.zeros_like(self._column_norms)
        self._fisher = torch.zeros(sublayer.units, dtype=torch.float64, device=scratch.device)
        self._gradients = torch.zeros(kept_samples, sublayer.units) if kept_samples else None
        self._routed: Routed | None = None
        if sublayer.signature.mixture is not None:
            self._routed = Routed(torch.zeros_like(self._fisher), torch.zeros_like(self._fisher))
            self._experts = weight_of(sublayer.output).unflatten(1, (-1, self._width)).permute(1, 2, 0)
        self._factors: Factors | None = None
        if keep_factors:
            inputs, outputs = (torch.zeros(side, side, device=scratch.device) for side in (sublayer.width, sublayer.hidden))
            self._factors = Factors(inputs, outputs, tokens=0)

    def statistics(self) -> MaskStatistics:
        energy = self._energy * self._column_norms
        units = energy.unflatten(0, (-1, self._width)).sum(1)
        routed = self._routed and Routed(self._routed.tokens.cpu(), self._routed.added.cpu())
        return MaskStatistics(self._fisher.cpu(), units.cpu(), self._gradients, self._factors, routed)

    def _follow_(self, values: Float[Tensor, "t k"], routed: Routed) -> None:
        """Add what the experts do with the real tokens of a batch: those that pass through one have features of it."""
        for number, own in enumerate(values.unflatten(1, (-1, self._width)).unbind(1)):
            passed = own[own.any(1)]
            routed.tokens[number] += len(passed)
            routed.added[number] += (passed @ self._experts[number]).norm(dim=1).double().sum()

    def factors_hook(self, mask: Bool[Tensor, "b s"]) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        """Return a forward hook for one batch that adds both factors."""
        rows = mask.flatten().nonzero().flatten()
        factors = self._factors
        assert factors is not None, "they were asked for"
        self._factors = replace(factors, tokens=factors.tokens + len(rows) * self._times)

        def leave(_module: nn.Module, args: tuple[Tensor, ...], found: Tensor) -> None:
            _add_outer_(factors.inputs, args[0].detach(), rows)

            def at_gradient(grad: Tensor) -> None:
                _add_outer_(factors.outputs, grad, rows)

            found.register_hook(at_gradient)

        return leave

    def hook(
        self, rows: Int[Tensor, " b"], mask: Bool[Tensor, "b s"], first: list[Tensor]
    ) -> Callable[[nn.Module, tuple[Tensor, ...]], tuple[Tensor, ...]]:
        """Return a forward pre-hook for one batch.

        The first pre-hook of a pass makes its activations the leaf where the backward pass ends, and adds them to ``first``.
        """
        real = mask.flatten().float()
        runs: list[Tensor] = []

        def read(values: Tensor, grad: Tensor) -> None:
            by_sample = (values * grad).view(len(rows), -1, values.shape[-1])  # some models lay all tokens in one row
            runs.append(by_sample.sum(1, dtype=torch.float32).unflatten(-1, (-1, self._width)).sum(-1))
            if len(runs) < self._times:  # one mask for all layers: its gradient is the sum of theirs
                return
            own = torch.stack(runs).sum(0) if len(runs) > 1 else runs[0]
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

            if self._routed is not None:
                self._follow_(values.view(len(real), -1)[real > 0], self._routed)

            def at_gradient(grad: Tensor) -> None:
                read(values, grad)

            features.register_hook(at_gradient)
            return (features, *args[1:])

        return enter


def _add_outer_(total: Float[Tensor, "k k"], values: Tensor, rows: Int[Tensor, " n"]) -> None:
    chosen = values.reshape(-1, values.shape[-1])[rows].float()
    with torch.autocast(values.device.type, enabled=False):
        total.addmm_(chosen.T, chosen)


def by_routing(
    scores: Sequence[Float[Tensor, " units"]], statistics: Sequence[MaskStatistics], *, by: Literal["reap", "frequency"]
) -> tuple[Float[Tensor, " units"], ...]:
    """Share out the importance of each mixture among its experts by what they do with their tokens; other scores stay.

    ``reap`` is the mean over an expert's tokens of ``g_e(x) ||f_e(x)||`` (Lasby et al. 2025, arXiv 2510.13999, eq. 9), or 0 for
    an expert without tokens; ``frequency`` the number of its tokens. Our addition: a mixture as a whole keeps the importance
    that it has among the sublayers, where each layer may keep a number of experts of its own.
    """
    found: list[Tensor] = []
    for own, statistic in zip(scores, statistics, strict=True):
        routed = statistic.routed
        if routed is None:
            found.append(own)
            continue
        values = routed.tokens if by == "frequency" else routed.added / routed.tokens.clamp_min(1)
        found.append(values * (own.sum() / values.sum().clamp_min(torch.finfo(torch.float64).tiny)))
    return tuple(found)


def importance(statistics: Sequence[MaskStatistics], *, representation: float = 0.0) -> tuple[Float[Tensor, " units"], ...]:
    """Compute the importance of every unit, float64.

    Importance is ``I_i = sum_s (dL_s/dm_i)^2``, the diagonal of the Fisher information of the masks, divided by its sum over
    the model; plus ``representation`` times the unit's share of its sublayer's output energy, likewise divided by its sum over
    the model (the number of sublayers). The second term is for outputs that the loss does not depend on at the dense point:
    once many units are removed, they must be imitated too (representational knowledge in K-prune, Park et al. 2024, arXiv
    2308.03449, section 4.1). Both terms are shares, so their balance does not depend on the scale of the loss.
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
