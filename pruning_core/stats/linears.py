"""What every linear of the dense model's blocks reads, and what an error of each of its outputs counts for the model's answers.

A Kronecker-factored Fisher (Martens and Grosse 2015, arXiv 1503.05671, section 3.1) with a diagonal second factor: taking
``W`` to ``W + D`` costs about ``tr(D^T A D B)`` with ``A`` the inputs' covariance and ``B`` the diagonal of the summed squared
gradients of the outputs. Of ``A`` only the blocks along the diagonal are computed, one for each run of inputs whose weights
go together: they cost next to nothing. One forward and one backward give both; no parameter needs a gradient, and without
labels the gradients are those of probes of the answers (`pruning_core.stats.fisher.probe`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pruning_core.arch.linear import inputs_of, outputs_of
from pruning_core.evidence.calibration import Batch
from pruning_core.evidence.states import DenseStates
from pruning_core.machine.finite import require_finite
from pruning_core.machine.precision import products_in
from pruning_core.shapes import Bool, Float, Int
from pruning_core.stats.fisher import Objective
from pruning_core.tasks.base import TaskModel

if TYPE_CHECKING:
    from pruning_core.arch.linear import AnyLinear


@dataclass(frozen=True, slots=True)
class LinearStatistics:
    """Of one linear, over the real tokens of the calibration samples.

    Attributes:
        covariances: Of each run of inputs, centred, (runs, length, length), float32; what a last run lacks is zero.
        output_weights: Sum of squared gradients of each output, (d,), float32.
    """

    covariances: Float[Tensor, "runs g g"]
    output_weights: Float[Tensor, " d"]


def linear_statistics(
    task_model: TaskModel,
    linears: Mapping[str, AnyLinear],
    lengths: Mapping[str, int],
    batches: Sequence[Batch],
    objective: Objective,
    *,
    dtype: torch.dtype,
    on_batch: Callable[[int], None],
    states: DenseStates,
    written: Collection[str] = (),
) -> dict[str, LinearStatistics]:
    """Run the dense model forward and back once.

    Linears that read the very same tensor in the same runs (query, key and value) share their moments.

    Args:
        task_model: Dense model.
        linears: Its prunable linears by name, in the order in which the model runs them.
        lengths: Inputs of a run, of each of them.
        batches: Calibration batches.
        objective: Scalar of a batch.
        dtype: Format of the model's own products; those of covariances are float32.
        on_batch: Told after each batch how many are done.
        states: Records the dense model's states on the way.
        written: Names of those that read the tokens that a decoder writes; all others read the encoder's.

    Raises:
        NotFinite: Activations, gradients or the objective are no finite numbers.
    """
    watches = {name: _Watch(linear, lengths[name], task_model.device) for name, linear in linears.items()}
    for index, cpu_batch in enumerate(batches):
        batch = cpu_batch.to(task_model.device)
        rows = {True: _places(batch.written), False: _places(batch.real)}
        first: list[Tensor] = []
        latest = _Latest()
        with ExitStack() as stack:
            for name, linear in linears.items():
                stack.callback(linear.register_forward_hook(watches[name].hook(rows[name in written], first, latest)).remove)
            stack.enter_context(states.recording(index))
            with torch.enable_grad(), products_in(dtype, task_model.device):
                value = objective(task_model.outputs(batch.inputs).float(), batch)
            require_finite(value, f"the model's outputs on calibration batch {index}, by the objective that scores stand on")
            torch.autograd.grad(value, first)
        on_batch(index + 1)
    found = {name: watch.statistics() for name, watch in watches.items()}
    for name, own in found.items():
        require_finite(own.covariances, f"the covariances of what {name} reads on the calibration samples")
    for name, own in reversed(found.items()):
        require_finite(own.output_weights, f"the squared gradients of what {name} gives on the calibration samples")
    return found


def _places(real: Bool[Tensor, "b s"]) -> Int[Tensor, " n"]:
    """Give the flat indices of real tokens."""
    return real.flatten().nonzero().flatten()


class _Moments:
    """Sums of the inputs of one linear, or of several that read the same tensor."""

    def __init__(self, width: int, length: int, device: torch.device) -> None:
        self.length, runs = length, -(-width // length)
        self._lack = runs * length - width
        self._products = torch.zeros(runs, length, length, device=device)
        self._sums = torch.zeros(runs, length, dtype=torch.float64, device=device)
        self._rows = 0

    def add_(self, X: Float[Tensor, "n k"]) -> None:
        runs = nn.functional.pad(X, (0, self._lack)).unflatten(1, (-1, self.length)).transpose(0, 1)
        self._products.baddbmm_(runs.mT, runs)
        self._sums += runs.sum(1, dtype=torch.float64)
        self._rows += len(X)

    def covariances(self) -> Float[Tensor, "runs g g"]:
        rows = max(1, self._rows)
        mean = self._sums / rows
        return (self._products.double() / rows - mean[:, :, None] * mean[:, None, :]).float()


@dataclass(slots=True)
class _Latest:
    """The tensor that the last linear read, alive so that no other can take its place, and its moments."""

    read: Tensor | None = None
    moments: _Moments | None = None


class _Watch:
    """Adds up the statistics of one linear."""

    def __init__(self, linear: AnyLinear, length: int, device: torch.device) -> None:
        self._width, self._length, self._device = inputs_of(linear), length, device
        self._weights = torch.zeros(outputs_of(linear), dtype=torch.float64, device=self._device)
        self._moments: _Moments | None = None

    def statistics(self) -> LinearStatistics:
        assert self._moments is not None, "the model ran its linears"
        return LinearStatistics(self._moments.covariances(), self._weights.float())

    def hook(
        self, rows: Int[Tensor, " n"], first: list[Tensor], latest: _Latest
    ) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
        """Make a forward hook for one batch and its real tokens; the first outputs are where the backward pass ends."""

        def at_gradient(grad: Tensor) -> None:
            read = grad.reshape(-1, grad.shape[-1]).index_select(0, rows)
            self._weights += read.float().square().sum(0, dtype=torch.float64)

        called = False

        def leave(_module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
            nonlocal called
            if called:  # DeBERTa may run a linear once more, on the embeddings of relative positions
                return output
            called = True
            if latest.read is args[0] and latest.moments is not None and latest.moments.length == self._length:
                self._moments = latest.moments
            else:
                self._moments = self._moments or _Moments(self._width, self._length, self._device)
                read = args[0].detach()  # some models lay all tokens in one row
                self._moments.add_(read.reshape(-1, read.shape[-1]).index_select(0, rows).float())
                latest.read, latest.moments = args[0], self._moments
            if not output.requires_grad:
                output = output.detach().requires_grad_()
                first.append(output)
            output.register_hook(at_gradient)
            return output

        return leave
