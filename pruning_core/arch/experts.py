"""Mixtures of experts in the loaded model: their output projections as one matrix, whose columns belong to experts.

A mixture adds ``sum over the chosen experts of g_e(x) W_e h_e(x)`` to the residual stream. That is one product: of the matrix
``[W_1 W_2 ...]`` with the features ``(g_1 h_1, g_2 h_2, ...)``, where those of experts that a token does not pass through are
zero. So an expert is a unit like a head, with as many columns as it has neurons.

The model's own modules stay what they are. `Spread` is put beside them as a module without parameters that stands for that
matrix. While somebody listens to it, it computes what the experts give, and is given their features; else it does nothing.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from pruning_core.plugin.per_layer import experts_of
from pruning_core.shapes import Float, Int

_NAME = "spread"


class Spread(nn.Module):
    """The output projections of all experts as one linear layer: (hidden, experts x columns).

    An expert's columns are those of its neurons and, where the experts have biases, one more, which reads its gate.
    """

    bias = None

    def __init__(self, experts: nn.Module) -> None:
        """Stand for the projections of a module that has those of all experts in one tensor."""
        super().__init__()
        self._experts = (experts,)  # in a tuple, so that torch does not register it as a part

    @property
    def weight(self) -> Float[Tensor, "d k"]:
        """The matrix, without a gradient: a copy."""
        experts = self._stacked
        down, bias = _outputs(experts), getattr(experts, "down_proj_bias", None)
        if bias is not None:
            down = torch.cat([down, bias[:, :, None]], dim=2)
        return down.detach().permute(1, 0, 2).flatten(1)

    @property
    def out_features(self) -> int:
        """Width of the residual stream."""
        return _outputs(self._stacked).shape[1]

    @property
    def in_features(self) -> int:
        """Columns of all experts."""
        experts, _, columns = _outputs(self._stacked).shape
        return experts * (columns + hasattr(self._stacked, "down_proj_bias"))

    def set_(self, weight: Float[Tensor, "d k"]) -> None:
        """Give the experts new output projections, in the type and on the device of the present ones."""
        experts = self._stacked
        down = weight.unflatten(1, (_outputs(experts).shape[0], -1)).permute(1, 0, 2)
        if hasattr(experts, "down_proj_bias"):
            down, bias = down[:, :, :-1], down[:, :, -1]
            _replace_(experts, "down_proj_bias", bias)
        _replace_(experts, "down_proj", down.transpose(1, 2) if experts.is_transposed else down)

    def features(
        self, hidden: Float[Tensor, "t d"], chosen: Int[Tensor, "t e"], gates: Float[Tensor, "t e"]
    ) -> Float[Tensor, "t k"]:
        """Compute the features of tokens.

        Args:
            hidden: What the experts read.
            chosen: Numbers of the experts that each token passes through.
            gates: Their weights.
        """
        experts = self._stacked
        inputs, bias = experts.gate_up_proj, getattr(experts, "gate_up_proj_bias", None)
        columns = self.in_features // inputs.shape[0]
        found = hidden.new_zeros(len(hidden), inputs.shape[0], columns)
        for number in chosen.unique().tolist():
            token, place = torch.where(chosen == number)
            own = inputs[number].T if experts.is_transposed else inputs[number]
            gate = gates[token, place, None].to(hidden.dtype)
            values = experts._apply_gate(functional.linear(hidden[token], own, None if bias is None else bias[number]))
            if bias is not None:
                values = torch.cat([values, torch.ones_like(gate)], dim=1)
            found = found.index_put((token, torch.full_like(token, number)), values * gate)
        return found.flatten(1)

    def forward(self, features: Float[Tensor, "t k"]) -> Float[Tensor, "t d"]:
        """Compute what the experts add."""
        return functional.linear(features, self.weight.to(features.dtype))

    @property
    def _stacked(self) -> Any:
        return self._experts[0]


def listened_(experts: nn.Module) -> Spread:
    """Put a `Spread` beside the matrices of experts, and return it; the one that is there already, if there is one."""
    found = getattr(experts, _NAME, None)
    if found is None:
        found = Spread(experts)
        setattr(experts, _NAME, found)
        experts.register_forward_hook(_through_spread, with_kwargs=True)
    return cast("Spread", found)


def is_stacked(experts: object) -> bool:
    """Return whether a module has the matrices of all its experts in one tensor each."""
    tensors = [getattr(experts, name, None) for name in ("gate_up_proj", "down_proj")]
    return hasattr(experts, "_apply_gate") and all(isinstance(own, nn.Parameter) and own.ndim == 3 for own in tensors)


def keep_experts_(mixture: nn.Module, kept: Int[Tensor, " e"]) -> None:
    """Remove all other experts of a mixture in place, with their rows of the router and its biases."""
    for module, name in experts_of(mixture):
        _replace_(module, name, cast("Tensor", getattr(module, name)).detach()[kept])
    for module in mixture.modules():
        if hasattr(module, "num_experts"):
            setattr(module, "num_experts", len(kept))  # noqa: B010 - torch types attributes as tensors


def _outputs(experts: Any) -> Float[Tensor, "e d k"]:
    """Return a view of the experts' output projections."""
    return experts.down_proj.transpose(1, 2) if experts.is_transposed else experts.down_proj


def _replace_(module: nn.Module, name: str, values: Tensor) -> None:
    """Put a copy of values in the place of a parameter or buffer: another model may share the present one."""
    present = cast("Tensor", getattr(module, name))
    copied = values.detach().to(present).clone(memory_format=torch.contiguous_format)
    setattr(module, name, nn.Parameter(copied, requires_grad=False) if isinstance(present, nn.Parameter) else copied)


# Forward hook: where somebody listens to the spread matrix, what the experts give is computed by it.
def _through_spread(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> Tensor:
    spread = cast("Spread", getattr(module, _NAME))
    hooks = (vars(spread)[name] for name in ("_forward_pre_hooks", "_forward_hooks"))  # torch has no other way to ask
    if not any(hooks):
        return output
    hidden, chosen, gates = (*args, *kwargs.values())[:3]
    return spread(spread.features(hidden, chosen, gates)).to(output.dtype)
