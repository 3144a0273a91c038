"""Statistics of every linear of the dense model's blocks: covariances of its inputs, and squared gradients of its outputs.

They are a Kronecker-factored Fisher (Martens and Grosse 2015, arXiv 1503.05671, section 3.1) with a diagonal second factor.
Changing ``W`` to ``W + D`` costs about ``tr(D^T A D B)``, with ``A`` the covariance of the inputs and ``B`` the diagonal of the
summed squared gradients of the outputs. Only the diagonal blocks of ``A`` are computed, one for each run of inputs whose
weights are removed together: they cost next to nothing. One forward and one backward pass give both factors, and no parameter
needs a gradient. Without labels the gradients are those of probes of the outputs (`pruning_core.stats.fisher.probe`).
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
from pruning_core.kept.piece import Piece, packed, unpacked
from pruning_core.machine.finite import require_finite
from pruning_core.machine.precision import products_in
from pruning_core.shapes import Bool, Float, Int
from pruning_core.stats.fisher import Objective
from pruning_core.tasks.base import TaskModel

if TYPE_CHECKING:
    from pruning_core.arch.linear import AnyLinear


@dataclass(frozen=True, slots=True)
class LinearStatistics:
    """Statistics of one linear over the real tokens of the calibration samples.

    Attributes:
        covariances: Centred covariance of each run of inputs, (runs, length, length), float32; a last run that is shorter is
            padded with zeros.
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
    times: int = 1,
) -> dict[str, LinearStatistics]:
    """Compute the statistics of every linear, with one forward and one activation-backward pass.

    Linears that read the same tensor in runs of the same length (query, key and value projections) share their moments.

    Args:
        task_model: The dense model.
        linears: The model's prunable linears by name, in the order in which the model runs them.
        lengths: Number of inputs in a run, for each linear.
        batches: Calibration batches.
        objective: Scalar of a batch.
        dtype: Data type of the model's own products; those of covariances are float32.
        on_batch: Called after each batch with the number of finished batches.
        states: Recorder of the dense model's hidden states during this pass.
        written: Names of the linears that read the tokens of the decoder; all others read those of the encoder.
        times: How often the model runs each linear on its tokens: for each layer, where all share one block.

    Raises:
        NotFinite: Activations, gradients or the objective are NaN or infinite.
    """
    watches = {name: _Watch(linear, lengths[name], task_model.device) for name, linear in linears.items()}
    for index, cpu_batch in enumerate(batches):
        batch = cpu_batch.to(task_model.device)
        rows = {True: _places(batch.written), False: _places(batch.real)}
        first: list[Tensor] = []
        latest = _Latest()
        with ExitStack() as stack:
            for name, linear in linears.items():
                stack.callback(
                    linear.register_forward_hook(watches[name].hook(rows[name in written], first, latest, times)).remove
                )
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


def as_piece(statistics: Mapping[str, LinearStatistics]) -> Piece:
    """Return the statistics as a piece to keep."""
    return packed([part for own in statistics.values() for part in (own.covariances, own.output_weights)])


def from_piece(piece: Piece, names: Sequence[str], device: torch.device) -> dict[str, LinearStatistics]:
    """Return the statistics of linears on a device, in the order in which `as_piece` has packed them."""
    parts = [own.to(device) for own in unpacked(piece)]
    return {name: LinearStatistics(*pair) for name, pair in zip(names, zip(parts[::2], parts[1::2], strict=True), strict=True)}


def _places(real: Bool[Tensor, "b s"]) -> Int[Tensor, " n"]:
    """Return the flat indices of real tokens."""
    return real.flatten().nonzero().flatten()


class _Moments:
    """Accumulator of the input moments of one linear, or of several that read the same tensor."""

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
    """The tensor that the last linear read, and its moments. The tensor is kept alive so that no other takes its address."""

    read: Tensor | None = None
    moments: _Moments | None = None


class _Watch:
    """Accumulator of one linear's statistics."""

    def __init__(self, linear: AnyLinear, length: int, device: torch.device) -> None:
        self._width, self._length, self._device = inputs_of(linear), length, device
        self._weights = torch.zeros(outputs_of(linear), dtype=torch.float64, device=self._device)
        self._moments: _Moments | None = None

    def statistics(self) -> LinearStatistics:
        assert self._moments is not None, "the model ran its linears"
        return LinearStatistics(self._moments.covariances(), self._weights.float())

    def hook(
        self, rows: Int[Tensor, " n"], first: list[Tensor], latest: _Latest, times: int
    ) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
        """Return a forward hook for one batch and its real tokens.

        Outputs that do not depend on an earlier linear become leaves where the backward pass ends, and are added to ``first``.
        """

        def at_gradient(grad: Tensor) -> None:
            read = grad.reshape(-1, grad.shape[-1]).index_select(0, rows)
            self._weights += read.float().square().sum(0, dtype=torch.float64)

        called = 0

        def leave(_module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
            nonlocal called
            if called == times:  # DeBERTa may run a linear once more, on the embeddings of relative positions
                return output
            called += 1
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
