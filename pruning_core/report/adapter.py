"""The report on an adapter that was merged into the model. Torch-free."""

from __future__ import annotations

from pydantic import Field

from pruning_core.spec.frozen import Frozen


class AdapterReport(Frozen):
    """A LoRA adapter. What the report calls dense is the base with it."""

    name: str = Field(description="The last name of its path.")
    rank: int = Field(description="The largest rank of its updates.")
    modules: int = Field(description="Number of matrices that it changed.")
    sha256: dict[str, str] = Field(description="Of its files.")

    @property
    def words(self) -> str:
        """What was merged, in words."""
        return (
            f"the LoRA adapter {self.name} (rank {self.rank}, {self.modules} matrices) was merged into the model first: what "
            "is called dense is the two together"
        )
