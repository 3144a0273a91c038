"""The loader of Coppice checkpoints: per-layer widths and compressed weights in stock ``from_pretrained``.

transformers builds a model from one config, with one width for all layers. The layers of a pruned model have different widths.
This plug-in uses transformers' quantizer interface, which lets it replace modules before the weights are loaded: each linear
layer whose shape differs from the config is replaced by one of the stored shape. Loading is exact.

A compressed matrix (`pruning_core.artifacts.compressed`) is stored as its values and an index of their positions, a rounded one
(`pruning_core.artifacts.rounded`) as integers of few bits and their scales. After loading, both become ordinary dense matrices,
so the model that ``from_pretrained`` returns has only ordinary layers.

This file is self-contained on purpose: it is also copied into every bundle, where ``trust_remote_code=True`` runs it for users
who do not have Coppice. Importing it does one thing: it registers the plug-in with transformers.
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
    # For the type checker only: this module may be imported while transformers' own modules are still being loaded.
    from transformers import PreTrainedModel

QUANT_METHOD = "coppice"


class CoppiceConfig(QuantizationConfigMixin):
    """The ``quantization_config`` entry of ``config.json``: what differs from the model that the rest of the config describes.

    Attributes:
        linears: Module path of a linear layer -> its stored shape, [outputs, inputs].
        counts: Module path of an attention -> attributes that depend on its heads, such as ``{"num_heads": 3}``. Some modules
            reshape by them. A list is the indices of the heads for `choose_positions`; of a parameter, it is the length.
        experts: Module path of a mixture of experts -> its number of experts. Empty where it is that of the rest of the config.
        absent: Module path of an attention that a layer does not have -> that of the norm before it, which it does not have
            either.
        packed: Module path of a linear layer -> the form of its compressed weight: shape, sizes, checksums, and the fields
            that `support_of` reads. ``stored`` is its name in the files where that differs from the module path. Empty where
            no weight is compressed.
        rounded: Module path of a linear layer or an embedding -> how its integers are stored: ``shape``, ``bits``, ``group``
            (weights of a row that share a scale), ``crc``; ``transposed`` where the module has it input-major. Empty where no
            weight is rounded.
    """

    def __init__(
        self,
        linears: dict[str, list[int]],
        counts: dict[str, dict[str, int | list[int]]] | None = None,
        quant_method: str = QUANT_METHOD,
        packed: dict[str, dict[str, Any]] | None = None,
        absent: dict[str, str] | None = None,
        *,
        rounded: dict[str, dict[str, Any]] | None = None,
        experts: dict[str, int] | None = None,
    ) -> None:
        """Store the arguments. transformers finds this class by ``quant_method``."""
        self.quant_method = quant_method  # pyright: ignore[reportAttributeAccessIssue] - typed as their closed enum
        self.linears = linears
        self.counts = counts or {}
        self.packed = packed or {}
        self.absent = absent or {}
        self.rounded = rounded or {}
        self.experts = experts or {}

    def to_dict(self) -> dict[str, Any]:
        """Return the entry. Without absent attentions, experts and rounded weights it is as earlier versions read it."""
        later = ("absent", "rounded", "experts")
        return {name: value for name, value in super().to_dict().items() if name not in later or value}


class CoppiceQuantizer(HfQuantizer):
    """The plug-in: sets shapes and head counts before the weights are loaded, and unpacks compressed weights afterwards."""

    quantization_config: CoppiceConfig

    def _process_model_before_weight_loading(self, model: PreTrainedModel, **_kwargs: object) -> PreTrainedModel:
        for path, (outputs, inputs) in self.quantization_config.linears.items():
            parent, name = _find(model, path)
            setattr(parent, name, _resized(getattr(parent, name), outputs, inputs))
        for path, count in self.quantization_config.experts.items():
            parent, name = _find(model, path)
            resize_experts_(parent.get_submodule(name), count)
        for path, norm in self.quantization_config.absent.items():
            (parent, attention), (_, before) = _find(model, path), _find(model, norm)
            leave_out_attention_(parent, attention, before)
        for path, counts in self.quantization_config.counts.items():
            parent, name = _find(model, path)
            module = getattr(parent, name)
            for attribute, value in counts.items():
                if isinstance(value, list):
                    choose_positions(module, value)
                elif attribute == "config_heads":
                    read_heads_(module, value)
                elif isinstance(vector := getattr(module, attribute, None), nn.Parameter):
                    setattr(module, attribute, nn.Parameter(vector.new_empty(value), requires_grad=False))
                else:
                    setattr(module, attribute, value)
        for path, form in self.quantization_config.packed.items():
            parent, name = _find(model, path)
            setattr(parent, name, _Packed(parent.get_submodule(name), form))
        for path, form in self.quantization_config.rounded.items():
            parent, name = _find(model, path)
            setattr(parent, name, _Rounded(parent.get_submodule(name), form))
        return model

    def _process_model_after_weight_loading(self, model: PreTrainedModel, **_kwargs: object) -> PreTrainedModel:
        for path, form in self.quantization_config.packed.items():
            parent, name = _find(model, path)
            setattr(parent, name, _packed_at(parent, name).unpacked(path, form))
        for path, form in self.quantization_config.rounded.items():
            parent, name = _find(model, path)
            setattr(parent, name, _rounded_at(parent, name).read(path, form))
        if self.quantization_config.rounded:
            model.tie_weights()  # what was tied to the integers is to be tied to the weights
        self.quantization_config.packed = {}  # the weights are dense now, and are saved as such
        self.quantization_config.rounded = {}
        return model

    def is_serializable(self) -> bool:  # pyright: ignore[reportIncompatibleMethodOverride] - theirs is unannotated
        """Return True: the model can be saved again, since its config holds the shapes."""
        return True

    @property
    def is_trainable(self) -> bool:  # pyright: ignore[reportIncompatibleMethodOverride] - theirs is unannotated
        """True, since all layers are ordinary ones."""
        return True


class NoAttention(nn.Module):
    """What stands in the place of an attention that a layer does not have: it adds nothing, and keeps nothing in a cache.

    A cache is as long as what its first layer has seen, so that the first layer must have an attention.
    """

    is_absent = True

    def forward(self, hidden_states: Tensor, **_given: object) -> tuple[Tensor, None]:
        """Return what is added to the residual stream, (batch, length, d), and no attention weights."""
        return torch.zeros_like(hidden_states), None


def leave_out_attention_(block: nn.Module, attention: str, norm: str) -> None:
    """Take the attention and the norm before it out of a block, in place. Their names lead to modules without weights."""
    setattr(block, attention, NoAttention())
    setattr(block, norm, nn.Identity())


def experts_of(mixture: nn.Module) -> list[tuple[nn.Module, str]]:
    """List the tensors of a mixture of experts that have an entry for each expert, each by its module and name."""
    found: list[tuple[nn.Module, str]] = []
    for module in mixture.modules():
        count: object = getattr(module, "num_experts", None)
        own = (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))
        found += [(module, name) for name, tensor in own if isinstance(count, int) and tensor.shape[:1] == (count,)]
    return found


def resize_experts_(mixture: nn.Module, count: int) -> None:
    """Give a mixture room for another number of experts, in place; what its tensors hold is undefined until they are loaded."""
    for module, name in experts_of(mixture):
        tensor: Tensor = getattr(module, name)
        room = tensor.new_empty((count, *tensor.shape[1:]))
        setattr(module, name, nn.Parameter(room, requires_grad=False) if isinstance(tensor, nn.Parameter) else room)
    for module in mixture.modules():
        if hasattr(module, "num_experts"):
            setattr(module, "num_experts", count)  # noqa: B010 - torch types attributes as tensors


class OwnHeads:
    """The configuration of a model as one of its attentions reads it: with a number of heads of its own."""

    def __init__(self, shared: object, heads: int) -> None:
        """Take the number of heads, and everything else from the shared configuration whenever it is asked for."""
        self.shared = shared
        self.num_attention_heads = heads

    def __getattr__(self, name: str) -> Any:
        """Return an entry of the shared configuration."""
        shared = self.__dict__.get("shared")
        if shared is None or name.startswith("__"):  # a copy is asked for its methods before it has anything
            raise AttributeError(name)
        return getattr(shared, name)


def read_heads_(module: Any, heads: int) -> None:
    """Let an attention find a number of heads of its own where its code reads the configuration's (Phi-3), in place."""
    config = module.config
    module.config = OwnHeads(config.shared if isinstance(config, OwnHeads) else config, heads)
    module.config_heads = heads


def choose_positions(module: nn.Module, heads: list[int]) -> None:
    """Make a pruned attention module use, of a position bias for all heads, only the part for the heads that it still has.

    T5 computes the bias in its first layer (``compute_bias``), and each layer hands it on to the next. Pruned layers have
    different heads, so each one uses its own part and hands on the whole bias.

    Args:
        module: The attention, whose forward takes a ``position_bias`` of shape (batch, heads, queries, keys).
        heads: Indices of its heads among all heads of the dense model's layer.
    """
    if not hasattr(module, "position_heads"):
        module.register_forward_pre_hook(_pick_positions, with_kwargs=True)
        if hasattr(module, "compute_bias"):
            module.register_forward_hook(_hand_on_positions, with_kwargs=True)
    setattr(module, "position_heads", heads)  # noqa: B010 - torch types attributes as tensors


# Forward pre-hook: passes the bias of the module's own heads, and keeps the whole bias for `_hand_on_positions`.
def _pick_positions(
    module: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]
) -> tuple[tuple[object, ...], dict[str, object]]:
    given = _named(module, args, kwargs)
    whole = _whole_bias(module, given)
    given["position_bias"] = whole
    if whole is not None:
        given["position_bias"] = whole[:, getattr(module, "position_heads")]  # noqa: B009 - torch types it as a tensor
        given["whole_bias"] = whole  # for the hook below; a forward beside ``compute_bias`` accepts unknown keywords
    if not hasattr(module, "compute_bias"):
        given.pop("whole_bias", None)
    return (), given


# Forward hook: replaces the bias that the module hands on to the next layer by the whole one.
def _hand_on_positions(
    _module: nn.Module, _args: tuple[object, ...], kwargs: dict[str, object], output: tuple[object, ...]
) -> tuple[object, ...]:
    whole = kwargs.get("whole_bias")
    return output if whole is None else (output[0], whole, *output[2:])


# The position bias for all heads: the one that was handed on, or, in the first layer of a T5, a new one.
def _whole_bias(module: nn.Module, given: dict[str, Any]) -> Tensor | None:
    if given.get("key_value_states") is not None:
        return None  # in cross-attention the bias is zeros for another layer's heads; the module makes its own zeros
    if given.get("position_bias") is not None or not getattr(module, "has_relative_attention_bias", False):
        return given.get("position_bias")
    hidden, cache = given["hidden_states"], given.get("past_key_values")
    length, past = hidden.shape[1], 0 if cache is None else cache.get_seq_length(getattr(module, "layer_idx", 0))
    return cast("Any", module).compute_bias(length, length + past, device=hidden.device, past_seen_tokens=past)


# All arguments of a forward, by name.
def _named(module: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]) -> dict[str, Any]:
    names = list(inspect.signature(module.forward).parameters)
    return dict(zip(names, args, strict=False)) | kwargs


def _find(model: PreTrainedModel, stored_path: str) -> tuple[nn.Module, str]:
    """Find the parent of a module, and the module's name in it.

    The path is tried with and without the prefix of the base model: a bundle of a task model also loads as its base model, and
    the other way round.
    """
    prefix = f"{model.base_model_prefix}."
    paths = (stored_path, stored_path.removeprefix(prefix), prefix + stored_path)
    path = next((path for path in paths if _has(model, path)), stored_path)
    parent, _, name = path.rpartition(".")
    return model.get_submodule(parent), name


class _Packed(nn.Module):
    """A stand-in for a linear layer during loading: it receives the stored values and the bytes of their index."""

    weight_index: Tensor

    def __init__(self, dense: nn.Module, form: dict[str, Any]) -> None:
        super().__init__()
        weight, device = dense.get_parameter("weight"), dense.get_parameter("weight").device
        self.weight_values = nn.Parameter(torch.empty(form["values"], dtype=weight.dtype, device=device), requires_grad=False)
        self.register_buffer("weight_index", torch.empty(form["bytes"], dtype=torch.uint8, device=device))
        self.bias = dict(dense.named_parameters()).get("bias")
        self._dense = (dense,)  # in a tuple, so that torch does not register it as a part of the model

    def unpacked(self, path: str, form: dict[str, Any]) -> nn.Module:
        """Return the dense linear layer with the unpacked weight."""
        (dense,) = self._dense
        dense.register_parameter("weight", nn.Parameter(unpack(path, self.weight_values.detach(), self.weight_index, form)))
        dense.register_parameter("bias", self.bias)
        return dense


def _packed_at(parent: nn.Module, name: str) -> _Packed:
    module = parent.get_submodule(name)
    assert isinstance(module, _Packed), "put there before the weights were loaded"
    return module


class _Rounded(nn.Module):
    """A stand-in for a layer during loading: it receives integers under the name of the weight, and the scales beside them.

    Scales are float16 numbers in the guise of integers, which are not converted to the type that the model is loaded in.
    """

    weight_scales: Tensor

    def __init__(self, dense: nn.Module, form: dict[str, Any]) -> None:
        super().__init__()
        weight = dense.get_parameter("weight")
        (outputs, inputs), bits = form["shape"], form["bits"]
        codes = torch.empty(outputs, -(-inputs * bits // 8), dtype=torch.uint8, device=weight.device)
        scales = torch.empty(outputs, -(-inputs // form["group"]), dtype=torch.int16, device=weight.device)
        self.weight = nn.Parameter(codes, requires_grad=False)
        self.register_buffer("weight_scales", scales)
        self.bias = dict(dense.named_parameters()).get("bias")
        self._dense, self._dtype = (dense,), weight.dtype  # in a tuple, so that torch does not register it as a part

    def read(self, path: str, form: dict[str, Any]) -> nn.Module:
        """Return the dense layer with the weight that the integers stand for."""
        (dense,) = self._dense
        weight = unround(path, self.weight.detach(), self.weight_scales, form).to(self._dtype)
        dense.register_parameter("weight", nn.Parameter(weight.T.contiguous() if form.get("transposed") else weight))
        if self.bias is not None:
            dense.register_parameter("bias", self.bias)
        return dense


def _rounded_at(parent: nn.Module, name: str) -> _Rounded:
    module = parent.get_submodule(name)
    assert isinstance(module, _Rounded), "put there before the weights were loaded"
    return module


def unround(path: str, codes: Tensor, scales: Tensor, form: dict[str, Any]) -> Tensor:
    """Return the weights that integers stand for, (outputs, inputs), float32.

    Args:
        path: Module path, for errors.
        codes: Rows of unsigned integers, of ``bits`` bits each, the lowest bits of a byte first, (outputs, bytes), uint8.
        scales: The bits of float16 scales, one for every ``group`` weights of a row, (outputs, groups), int16.
        form: Shape, bits, group and checksum.

    Raises:
        ValueError: They are not the ones that were written.
    """
    if zlib.crc32(scales.cpu().numpy().tobytes(), zlib.crc32(codes.cpu().numpy().tobytes())) != form["crc"]:
        raise ValueError(f"{path}: its rounded weights are corrupt, integers and scales are not those that were written")
    bits, inputs = form["bits"], form["shape"][1]
    shifts = torch.arange(0, 8, bits, dtype=torch.uint8, device=codes.device)
    whole = ((codes[:, :, None] >> shifts) & (2**bits - 1)).flatten(1)[:, :inputs].float() - 2 ** (bits - 1)
    return whole * scales.view(torch.float16).float().repeat_interleave(form["group"], 1)[:, :inputs]


def unpack(path: str, values: Tensor, index: Tensor, form: dict[str, Any]) -> Tensor:
    """Unpack a compressed matrix into the dense one, (outputs, inputs).

    Raises:
        ValueError: The form cannot be read, the index is not the one that was written, or the number of values is another.
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
    """Return the support of a compressed matrix, (outputs, inputs): True where a value is stored. Values follow row by row.

    There are three forms of index. Bits are packed from the lowest bit of each byte.

    - ``bits``: one bit for each weight.
    - ``segments``: one bit for each run of ``length`` weights, along the inputs of an output (``axis`` 1) or along the outputs
      of an input (``axis`` 0).
    - ``indices``: for every ``m`` consecutive inputs of an output, the positions of ``n`` values, ascending.
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


# The first ``count`` bits of an index, the lowest bit of each byte first.
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
    """Return a linear layer of another shape, with the class, dtype and device of the old one."""
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
