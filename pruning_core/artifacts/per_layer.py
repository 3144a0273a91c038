"""Checkpoints with per-layer widths, loadable by stock ``from_pretrained``.

transformers builds a model from one config with one width for all layers. A plug-in of its quantizer interface, which may
replace modules on the meta device before the weights arrive, swaps in ``nn.Linear`` modules of the stored shapes. Nothing is
quantized; loading is exact.

This file is self-contained on purpose: it is also copied into every bundle, where ``trust_remote_code=True`` runs it for
users who do not have Coppice. Importing it registers the plug-in: that is all it is for.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from torch import nn
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
        linears: Module path -> [out_features, in_features].
    """

    def __init__(self, linears: dict[str, list[int]], quant_method: str = QUANT_METHOD) -> None:
        """Keep the shapes; ``quant_method`` is what transformers finds this class by."""
        self.quant_method = quant_method  # pyright: ignore[reportAttributeAccessIssue] - typed as their closed enum
        self.linears = linears


class CoppiceQuantizer(HfQuantizer):
    """Replaces the listed linear layers by ones of the stored shapes, before the weights are read."""

    quantization_config: CoppiceConfig

    def _process_model_before_weight_loading(self, model: PreTrainedModel, **_kwargs: object) -> PreTrainedModel:
        prefix = f"{model.base_model_prefix}."
        for stored_path, (out_features, in_features) in self.quantization_config.linears.items():
            # A bundle of a task model also loads as its bare encoder, and the other way round.
            names = (stored_path, stored_path.removeprefix(prefix), prefix + stored_path)
            parent_path, _, name = next((n for n in names if _has(model, n)), stored_path).rpartition(".")
            parent = model.get_submodule(parent_path)
            old = parent.get_submodule(name)
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Initializing zero-element tensors")
                new = nn.Linear(
                    in_features,
                    out_features,
                    bias="bias" in dict(old.named_parameters()),
                    device=old.weight.device,
                    dtype=old.weight.dtype,
                )
            setattr(parent, name, new)
        return model

    def is_serializable(self) -> bool:  # pyright: ignore[reportIncompatibleMethodOverride] - theirs is unannotated
        """The model can be saved again: the shapes travel in its config."""
        return True

    @property
    def is_trainable(self) -> bool:  # pyright: ignore[reportIncompatibleMethodOverride] - theirs is unannotated
        """Ordinary layers train as ever."""
        return True


def _has(model: nn.Module, path: str) -> bool:
    try:
        return isinstance(model.get_submodule(path), nn.Linear)
    except AttributeError:
        return False


if QUANT_METHOD not in AUTO_QUANTIZER_MAPPING:
    register_quantization_config(QUANT_METHOD)(CoppiceConfig)
    register_quantizer(QUANT_METHOD)(CoppiceQuantizer)
