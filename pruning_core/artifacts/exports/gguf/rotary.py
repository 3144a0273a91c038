"""Rotary positions of a decoder, as llama.cpp computes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch

from pruning_core.artifacts.exports.gguf.base import NotHeld
from pruning_core.engines.llama_cpp import rope_parts
from pruning_core.shapes import Float

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True, slots=True)
class Rotary:
    """Rotary positions as llama.cpp computes them.

    Attributes:
        base: The base of the frequencies.
        factors: Factors by which frequencies are divided, one for each pair of a head's values; None where all are 1.
        scale: Factor of sines and cosines.
    """

    base: float
    factors: Float[torch.Tensor, " k"] | None = None
    scale: float = 1.0

    @property
    def plain(self) -> bool:
        """Whether nothing is scaled."""
        return self.factors is None and self.scale == 1.0


def rotary_of(model: PreTrainedModel, head_size: int) -> Rotary:
    """Return a decoder's rotary positions, from the frequencies that transformers computed.

    Whatever scaled them (llama3, yarn, linear), llama.cpp divides plain frequencies by a stored factor for each. Gemma 3 has
    two kinds of positions, which its architecture reads as a type and a factor instead.

    Raises:
        NotHeld: The frequencies are none of a whole head.
    """
    parts = rope_parts(model.config.to_dict())
    base = float(parts[0].get("rope_theta", 10_000.0)) if parts else 10_000.0
    module = next((own for own in model.modules() if isinstance(getattr(own, "inv_freq", None), torch.Tensor)), None)
    if module is None or len(parts) > 1:
        return Rotary(base)
    found = cast("torch.Tensor", module.inv_freq).float().cpu()
    if len(found) * 2 != head_size:
        raise NotHeld("llama.cpp rotates whole heads in this family, and the model a part of each")
    powers = torch.arange(0, head_size, 2, dtype=torch.int64).float() / head_size
    factors = (1.0 / base**powers) / found
    scale = float(cast("float", getattr(module, "attention_scaling", 1.0)))
    return Rotary(base, None if bool((factors - 1).abs().max() < 1e-5) else factors, scale)
