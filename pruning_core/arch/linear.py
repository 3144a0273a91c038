"""Linear layers of all kinds, read and cut alike: ``nn.Linear`` is output-major, ``Conv1D`` input-major.

The output projections of the experts of a mixture are one, too (`arch.experts.Spread`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pruning_core.arch.experts import Spread
from pruning_core.shapes import Float, Int

if TYPE_CHECKING:
    from transformers.pytorch_utils import Conv1D

    PlainLinear = nn.Linear | Conv1D
    AnyLinear = PlainLinear | Spread


def is_linear(module: object) -> bool:
    """Return whether a module is a linear layer that can be cut."""
    return isinstance(module, nn.Linear) or is_transposed(module)


def is_transposed(module: object) -> bool:
    """Return whether a module stores its weights input-major."""
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, Conv1D)


def weight_of(linear: AnyLinear) -> Float[Tensor, "outputs inputs"]:
    """Return the weights, output-major and without a gradient: a view, but of experts a copy."""
    weight = linear.weight.detach()
    return weight.T if is_transposed(linear) else weight


def bias_of(linear: AnyLinear) -> Float[Tensor, " outputs"] | None:
    """Return the bias without a gradient, or None where the layer has none."""
    bias = linear.bias
    return None if bias is None else bias.detach()


def inputs_of(linear: AnyLinear) -> int:
    """Count the inputs."""
    if isinstance(linear, Spread):
        return linear.in_features
    return weight_of(linear).shape[1]


def outputs_of(linear: AnyLinear) -> int:
    """Count the outputs."""
    if isinstance(linear, Spread):
        return linear.out_features
    return weight_of(linear).shape[0]


def write_(linear: AnyLinear, weight: Float[Tensor, "outputs inputs"], bias: Float[Tensor, " outputs"] | None) -> None:
    """Write new values into the weights of a linear, of the same shape, and into its bias if it has one."""
    if isinstance(linear, Spread):
        linear.set_(weight)
        return
    weight_of(linear).copy_(weight)
    own = bias_of(linear)
    if own is not None and bias is not None:
        own.copy_(bias)


def set_(linear: AnyLinear, weight: Float[Tensor, "outputs inputs"], bias: Float[Tensor, " outputs"] | None) -> None:
    """Replace the parameters of a linear by copies, in the dtype and on the device of the present ones, and set its sizes."""
    if isinstance(linear, Spread):
        linear.set_(weight)
        return
    outputs, inputs = weight.shape
    stored = weight.T if is_transposed(linear) else weight
    # A copy even where nothing is cut: another model may share the present parameters.
    linear.weight = nn.Parameter(stored.to(linear.weight).clone(memory_format=torch.contiguous_format), requires_grad=False)
    if bias is not None:
        linear.bias = nn.Parameter(bias.to(linear.weight).clone(), requires_grad=False)
    if isinstance(linear, nn.Linear):
        linear.out_features, linear.in_features = outputs, inputs
    else:
        linear.nf, linear.nx = outputs, inputs


def keep_outputs_(linear: AnyLinear, index: Int[Tensor, " n"]) -> None:
    """Remove in place the outputs that are not in ``index``."""
    bias = bias_of(linear)
    set_(linear, weight_of(linear)[index], None if bias is None else bias[index])


def keep_inputs_(linear: AnyLinear, index: Int[Tensor, " n"]) -> None:
    """Remove in place the inputs that are not in ``index``; the bias stays the same tensor."""
    set_(linear, weight_of(linear)[:, index], None)
