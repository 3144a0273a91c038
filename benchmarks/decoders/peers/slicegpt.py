"""SliceGPT: Ashkboos et al. 2024, *Compress Large Language Models by Deleting Rows and Columns* (arXiv 2401.15024).

Section 3.1: with the scales of its norms folded into the linears, a model with RMSNorm computes the same in any orthogonal
basis of its residual stream. Section 3.2: the basis before each sublayer is that of the principal components of the residual
stream there, ``C = sum over i of X_i^T X_i``, of the signals that the sliced sublayers before it give. Section 3.3: the stream
keeps the first directions alone: matrices lose rows or columns, and the shortcut of each sublayer is a product with ``Q_l^T
Q_l+1``.

Here the sliced model is evaluated in the dense basis, where it is the dense model whose residual stream is projected, ``x <- (x
+ f(x)) Q Q^T``, after the embeddings and after each sublayer but the last (the authors' code does not slice the head; their
norms divide by the dense width, so that they agree). Multiply-accumulates are those of the sliced model: linears at the sliced
width, attention's own products, and one product with a shortcut for each sublayer, which weigh heavily in a model this narrow.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.decoders.case import Case
from benchmarks.decoders.peers.structure import priced, sizes
from pruning_core.arch.adapter import ModelAdapter
from pruning_core.arch.unit_costs import UnitGroup
from pruning_core.machine.precision import products_in
from pruning_core.shapes import Bool, Float


@dataclass(frozen=True, slots=True)
class Sliced:
    """Bases of the residual stream.

    Attributes:
        first: Of the embeddings, (d, width).
        after: After each sublayer but the last.
    """

    first: Float[Tensor, "d width"]
    after: tuple[Float[Tensor, "d width"], ...]


class Projected(nn.Module):
    """The orthogonal projection of a residual stream onto the span of a basis."""

    def __init__(self, basis: Float[Tensor, "d width"]) -> None:
        super().__init__()
        self.basis = basis.float()

    def forward(self, hidden: Float[Tensor, "... d"]) -> Float[Tensor, "... d"]:
        """Project, in float32."""
        with torch.autocast("cpu", enabled=False):
            return (hidden.float() @ self.basis @ self.basis.T).to(hidden.dtype)


def choose(case: Case, keep: float) -> tuple[Sliced, float]:
    """Return the bases of the width that keeps a share of the multiply-accumulates; 0 seconds are shared."""
    dense, calibration = case.evidence.dense, case.evidence.calibration
    width = width_for(dense.groups, calibration.mean_length, keep)
    with torch.no_grad(), products_in(case.evidence.dtype, dense.model.device):
        traces = [dense.trace(batch.inputs) for batch in calibration.batches]
        real = [batch.real for batch in calibration.batches]
        hidden = [trace.hidden for trace in traces]
        first = principal(hidden, real, width)
        bases: list[Tensor] = []
        hidden = [Projected(first)(own) for own in hidden]
        for sublayer in dense.sublayers[:-1]:
            for at, (own, trace) in enumerate(zip(hidden, traces, strict=True)):
                hidden[at] = sublayer.total(own, sublayer.features(own, trace.contexts[sublayer.layer])).float()
            bases.append(principal(hidden, real, width))
            project = Projected(bases[-1])
            for at, own in enumerate(hidden):
                hidden[at] = project(own)
    return Sliced(first, tuple(bases)), 0.0


def principal(hidden: list[Float[Tensor, "b s d"]], real: list[Bool[Tensor, "b s"]], width: int) -> Float[Tensor, "d width"]:
    """Return the first principal directions of the real tokens."""
    total = sum((own[kept].double().T @ own[kept].double() for own, kept in zip(hidden, real, strict=True)), torch.zeros(()))
    return torch.linalg.eigh(total).eigenvectors.flip(1)[:, :width].float()


def macs_at(groups: tuple[UnitGroup, ...], length: float, width: int) -> float:
    """Count the multiply-accumulates of the sliced model for one sequence: linears, attention's products, shortcuts."""
    dense = priced(groups, sizes(groups), length)
    linears = sum(length * group.weights_per_unit * group.size for group in groups)
    hidden = groups[0].hidden
    # Of the last sublayer the output is not sliced, nor is the other end of its shortcut.
    last = groups[-1].size * groups[-1].unit_width
    unsliced = length * last * (hidden - width)
    shortcuts = length * (width * width * (len(groups) - 1) + width * hidden)
    return dense - linears + linears * width / hidden + unsliced + shortcuts


def width_for(groups: tuple[UnitGroup, ...], length: float, keep: float) -> int:
    """Return the largest width that keeps at most a share of the multiply-accumulates.

    Raises:
        ValueError: There is none.
    """
    limit = keep * priced(groups, sizes(groups), length)
    fitting = [width for width in range(1, groups[0].hidden + 1) if macs_at(groups, length, width) <= limit]
    if not fitting:
        raise ValueError(f"no width keeps {keep:g} of the multiply-accumulates: shortcuts cost more")
    return max(fitting)


def project_(adapter: ModelAdapter, sliced: Sliced) -> Callable[[], None]:
    """Project the residual stream of a model wherever it runs; return what undoes it."""
    stack = ExitStack()
    first = Projected(sliced.first)
    embeddings = adapter.model.get_input_embeddings()
    stack.callback(embeddings.register_forward_hook(lambda _module, _args, output: first(output)).remove)
    for sublayer, basis in zip(adapter.sublayers, sliced.after, strict=False):
        _project_sum_(stack, sublayer.before, sublayer.output, Projected(basis))
    return stack.close


def _project_sum_(stack: ExitStack, norm: nn.Module | None, output: nn.Module, project: Projected) -> None:
    """Make an output projection add what brings the sum of it and the stream before its norm into the span."""
    assert norm is not None, "SliceGPT is for models whose norms stand before the sublayers"
    seen: list[Tensor] = []

    def keep(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
        seen[:] = [args[0]]

    def add(_module: nn.Module, _args: object, given: Tensor) -> Tensor:
        stream = seen[0].float()
        return (project(stream + given.float()) - stream).to(given.dtype)

    stack.callback(norm.register_forward_pre_hook(keep).remove)
    stack.callback(output.register_forward_hook(add).remove)
