"""Checkpoints with per-layer widths, and compressed ones, loadable by stock ``from_pretrained``.

transformers builds a model from one config with one width for all layers. A plug-in of its quantizer interface, which may
replace modules on the meta device before the weights arrive, swaps in linear modules of the stored shapes. Nothing is
quantized; loading is exact. Compressed matrices (`pruning_core.artifacts.compressed`) arrive as values and an index of where
they stand, and are laid out as the dense matrices that they are before anyone sees them.

This file is self-contained on purpose: it is also copied into every bundle, where ``trust_remote_code=True`` runs it for
users who do not have Coppice. Importing it registers the plug-in: that is all it is for.
"""

from __future__ import annotations

import inspect
import warnings
import zlib
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING, register_quantization_config, register_quantizer
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

if TYPE_CHECKING:
    # Only for the checker: this module is imported while transformers' own modules are still being loaded.
    from transformers import PreTrainedModel

QUANT_METHOD = "coppice"


class CoppiceConfig(QuantizationConfigMixin):
    """The part of ``config.json`` that says which linear layers are narrower than the config's widths.

    Attributes:
        linears: Module path -> [outputs, inputs].
        counts: Module path -> what the module says of its heads, such as ``{"num_heads": 3}``; some reshape by it.
        packed: Module path -> how its weight is compressed, see `support_of`, and where files call it something else than the
            model does, what (``stored``); empty where nothing is.
    """

    def __init__(
        self,
        linears: dict[str, list[int]],
        counts: dict[str, dict[str, int | list[int]]] | None = None,
        quant_method: str = QUANT_METHOD,
        packed: dict[str, dict[str, Any]] | None = None,
    ) -> None:
        """Keep the shapes; ``quant_method`` is what transformers finds this class by."""
        self.quant_method = quant_method  # pyright: ignore[reportAttributeAccessIssue] - typed as their closed enum
        self.linears = linears
        self.counts = counts or {}
        self.packed = packed or {}


class CoppiceQuantizer(HfQuantizer):
    """Replaces the listed linear layers by ones of the stored shapes before the weights are read, and sets counts of heads."""

    quantization_config: CoppiceConfig

    def _process_model_before_weight_loading(self, model: PreTrainedModel, **_kwargs: object) -> PreTrainedModel:
        for path, (outputs, inputs) in self.quantization_config.linears.items():
            parent, name = _find(model, path)
            setattr(parent, name, _resized(getattr(parent, name), outputs, inputs))
        for path, counts in self.quantization_config.counts.items():
            parent, name = _find(model, path)
            module = getattr(parent, name)
            for attribute, value in counts.items():
                if isinstance(value, list):
                    choose_positions(module, value)
                else:
                    setattr(module, attribute, value)
        for path, form in self.quantization_config.packed.items():
            parent, name = _find(model, path)
            setattr(parent, name, _Packed(parent.get_submodule(name), form))
        return model

    def _process_model_after_weight_loading(self, model: PreTrainedModel, **_kwargs: object) -> PreTrainedModel:
        for path, form in self.quantization_config.packed.items():
            parent, name = _find(model, path)
            setattr(parent, name, _packed_at(parent, name).unpacked(path, form))
        self.quantization_config.packed = {}  # whoever saves the model writes dense matrices
        return model

    def is_serializable(self) -> bool:  # pyright: ignore[reportIncompatibleMethodOverride] - theirs is unannotated
        """The model can be saved again: the shapes travel in its config."""
        return True

    @property
    def is_trainable(self) -> bool:  # pyright: ignore[reportIncompatibleMethodOverride] - theirs is unannotated
        """Ordinary layers train as ever."""
        return True


def choose_positions(module: nn.Module, heads: list[int]) -> None:
    """Let an attention module read, of a position bias that was made for all heads, those of the heads that it has.

    Args:
        module: The module, whose forward takes a ``position_bias`` of shape (batch, heads, queries, keys). One that can
            ``compute_bias`` (T5) makes it in the first layer and hands it on to the others: it is handed on whole.
        heads: Indices of its heads among all.
    """
    if not hasattr(module, "position_heads"):
        module.register_forward_pre_hook(_pick_positions, with_kwargs=True)
        if hasattr(module, "compute_bias"):
            module.register_forward_hook(_hand_on_positions, with_kwargs=True)
    setattr(module, "position_heads", heads)  # noqa: B010 - torch types attributes as tensors


def _pick_positions(
    module: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]
) -> tuple[tuple[object, ...], dict[str, object]]:
    given = _named(module, args, kwargs)
    whole = _whole_bias(module, given)
    given["position_bias"] = whole
    if whole is not None:
        given["position_bias"] = whole[:, getattr(module, "position_heads")]  # noqa: B009 - torch types it as a tensor
        given["whole_bias"] = whole  # for the hook below; modules that hand it on take further keywords
    if not hasattr(module, "compute_bias"):
        given.pop("whole_bias", None)
    return (), given


def _hand_on_positions(
    _module: nn.Module, _args: tuple[object, ...], kwargs: dict[str, object], output: tuple[object, ...]
) -> tuple[object, ...]:
    whole = kwargs.get("whole_bias")
    return output if whole is None else (output[0], whole, *output[2:])


def _whole_bias(module: nn.Module, given: dict[str, Any]) -> Tensor | None:
    if given.get("key_value_states") is not None:
        return None  # another layer's zeros, of as many heads as that one has; the module makes its own
    if given.get("position_bias") is not None or not getattr(module, "has_relative_attention_bias", False):
        return given.get("position_bias")
    hidden, cache = given["hidden_states"], given.get("past_key_values")
    length, past = hidden.shape[1], 0 if cache is None else cache.get_seq_length(getattr(module, "layer_idx", 0))
    return cast("Any", module).compute_bias(length, length + past, device=hidden.device, past_seen_tokens=past)


def _named(module: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]) -> dict[str, Any]:
    names = list(inspect.signature(module.forward).parameters)
    return dict(zip(names, args, strict=False)) | kwargs


def _find(model: PreTrainedModel, stored_path: str) -> tuple[nn.Module, str]:
    """Find the parent of a module and its name there: a bundle of a task model also loads as its base, and the other way."""
    prefix = f"{model.base_model_prefix}."
    paths = (stored_path, stored_path.removeprefix(prefix), prefix + stored_path)
    path = next((path for path in paths if _has(model, path)), stored_path)
    parent, _, name = path.rpartition(".")
    return model.get_submodule(parent), name


class _Packed(nn.Module):
    """A linear whose weight is on its way: the stored values, and the bytes that say where they stand."""

    weight_index: Tensor

    def __init__(self, dense: nn.Module, form: dict[str, Any]) -> None:
        super().__init__()
        weight, device = dense.get_parameter("weight"), dense.get_parameter("weight").device
        self.weight_values = nn.Parameter(torch.empty(form["values"], dtype=weight.dtype, device=device), requires_grad=False)
        self.register_buffer("weight_index", torch.empty(form["bytes"], dtype=torch.uint8, device=device))
        self.bias = dict(dense.named_parameters()).get("bias")
        self._dense = (dense,)  # in a tuple, it is no part of the model while the weights are read

    def unpacked(self, path: str, form: dict[str, Any]) -> nn.Module:
        """Give the dense linear."""
        (dense,) = self._dense
        dense.register_parameter("weight", nn.Parameter(unpack(path, self.weight_values.detach(), self.weight_index, form)))
        dense.register_parameter("bias", self.bias)
        return dense


def _packed_at(parent: nn.Module, name: str) -> _Packed:
    module = parent.get_submodule(name)
    assert isinstance(module, _Packed), "put there before the weights were read"
    return module


def unpack(path: str, values: Tensor, index: Tensor, form: dict[str, Any]) -> Tensor:
    """Lay a compressed matrix out.

    Raises:
        ValueError: Index and values are not what was written.
    """
    try:
        support = support_of(index, form)
    except (RuntimeError, KeyError, TypeError, IndexError) as error:
        raise ValueError(f"{path}: its compressed form cannot be read ({type(error).__name__})") from error
    if zlib.crc32(index.cpu().numpy().tobytes()) != form["crc"] or int(support.sum()) != values.numel():
        raise ValueError(f"{path}: its compressed form is corrupt, index and values are not those that were written")
    weight = torch.zeros(form["shape"], dtype=values.dtype, device=values.device)
    weight[support] = values
    return weight


def support_of(index: Tensor, form: dict[str, Any]) -> Tensor:
    """Read where values stand, (outputs, inputs), True where one does; values follow row by row.

    Three forms. ``bits``: one bit a weight. ``segments``: one bit for each run of ``length`` inputs of an output (``axis`` 1)
    or of outputs of an input (``axis`` 0). ``indices``: of every ``m`` consecutive inputs the places of ``n``, ascending. Bits
    are packed from the lowest of each byte.
    """
    outputs, inputs = form["shape"]
    if form["form"] == "indices":
        width = (form["m"] - 1).bit_length()
        count = outputs * inputs // form["m"]
        bits = _bits(index, count * form["n"] * width).view(count, form["n"], width)
        places = (bits.long() << torch.arange(width, device=index.device)).sum(-1)
        support = torch.zeros(count, form["m"], dtype=torch.bool, device=index.device)
        return support.scatter_(1, places, True).view(outputs, inputs)
    if form["form"] == "bits":
        return _bits(index, outputs * inputs).bool().view(outputs, inputs)
    axis, length = form["axis"], form["length"]
    grid = [outputs, inputs]
    grid[axis] = -(-grid[axis] // length)
    kept = _bits(index, grid[0] * grid[1]).bool().view(grid)
    return kept.repeat_interleave(length, axis).narrow(axis, 0, form["shape"][axis])


def _bits(index: Tensor, count: int) -> Tensor:
    if index.numel() != -(-count // 8):
        raise ValueError("the index of a compressed matrix has the wrong length")
    return ((index[:, None] >> torch.arange(8, device=index.device, dtype=torch.uint8)) & 1).flatten()[:count]


def _has(model: nn.Module, path: str) -> bool:
    try:
        model.get_submodule(path)
    except AttributeError:
        return False
    return True


def _resized(old: nn.Module, outputs: int, inputs: int) -> nn.Module:
    """Make a linear layer of another shape, of the same class, type and device."""
    parameters = dict(old.named_parameters())
    weight = parameters["weight"]
    with warnings.catch_warnings(), torch.device(weight.device):
        warnings.filterwarnings("ignore", "Initializing zero-element tensors")
        if isinstance(old, nn.Linear):
            return nn.Linear(inputs, outputs, bias="bias" in parameters, dtype=weight.dtype)
        return type(old)(outputs, inputs).to(weight.dtype)  # transformers' Conv1D


if QUANT_METHOD not in AUTO_QUANTIZER_MAPPING:
    register_quantization_config(QUANT_METHOD)(CoppiceConfig)
    register_quantizer(QUANT_METHOD)(CoppiceQuantizer)
