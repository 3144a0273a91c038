"""Storage types of matrices, and their bytes. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

StorageName = Literal["float", "int8", "int4"]


@dataclass(frozen=True, slots=True)
class StorageType:
    """How the weights of a matrix are stored.

    Attributes:
        title: What it is, for people.
        bits: Bits of an integer; None: floating-point numbers of the checkpoint's own type.
        group: Weights of a row that share a scale of two bytes; None: the whole row.
    """

    title: str
    bits: int | None
    group: int | None = None

    def groups(self, inputs: int) -> int:
        """Count the scales of a row."""
        return 1 if self.group is None else -(-inputs // self.group)

    def nbytes(self, outputs: int, inputs: int, float_bytes: int) -> int:
        """Count the bytes of a matrix; rows of integers begin at whole bytes.

        Args:
            outputs: Rows.
            inputs: Columns.
            float_bytes: Bytes of a floating-point number of the checkpoint.
        """
        if self.bits is None:
            return outputs * inputs * float_bytes
        return outputs * (-(-inputs * self.bits // 8) + 2 * self.groups(inputs)) if inputs else 0


# The registry, from the finest to the coarsest.
STORAGE_TYPES: Mapping[StorageName, StorageType] = {
    "float": StorageType("floating-point numbers", None),
    "int8": StorageType("integers of 8 bits, one scale a row", 8),
    "int4": StorageType("integers of 4 bits, one scale for 32 weights", 4, 32),
}

# A matrix of fewer weights stays as it is: there is nothing to save.
LEAST_WEIGHTS = 4096
