"""The report on storage types: in which type each matrix lies in the weight files. Torch-free."""

from __future__ import annotations

from pydantic import Field

from pruning_core.spec.frozen import Frozen
from pruning_core.spec.sizes import size_text
from pruning_core.spec.storage import StorageName


class StorageRow(Frozen):
    """The matrices of one type. Everything that is no chosen matrix, such as norms and biases, is among the floats."""

    type: StorageName
    matrices: int = Field(description="Number of tensors.")
    weights: int = Field(description="Number of weights that they stand for.")
    bytes: int = Field(description="Their bytes in the files, with scales.")


class StorageReport(Frozen):
    """Storage types, recounted from the headers of the written files."""

    rows: tuple[StorageRow, ...]
    types: dict[str, StorageName] = Field(description="Type of each matrix that is stored as integers, by module path.")

    @property
    def words(self) -> str:
        """The rows in words: ``12 matrices in int4 (3.1 MB)``."""
        return ", ".join(f"{row.matrices} tensors in {row.type} ({size_text(row.bytes)})" for row in self.rows)
