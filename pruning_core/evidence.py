"""What a run knows of the dense model on the calibration data: the ground of scores and of recovery."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from pruning_core.arch.encoder import EncoderAdapter
from pruning_core.calibration import TokenSet
from pruning_core.states import DenseStates


@dataclass(frozen=True, slots=True)
class Evidence:
    """Dense model, calibration data, and what is kept of the one on the other.

    Attributes:
        dense: The dense model's sublayers.
        calibration: Calibration batches.
        states: Hidden states kept from the scoring pass, as far as memory goes.
        dtype: Format of matrix products while statistics are gathered.
    """

    dense: EncoderAdapter
    calibration: TokenSet
    states: DenseStates
    dtype: torch.dtype
