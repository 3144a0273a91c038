"""The report on a vocabulary that was cut: what is left, what it saved, and what it costs other texts. Torch-free."""

from __future__ import annotations

from pydantic import Field

from pruning_core.spec.frozen import Frozen


class GrowthReport(Frozen):
    """How many tokens some texts become that were not asked for."""

    name: str
    before: int
    after: int
    unknown: int = Field(description="How many of the tokens say only that there is none: part of the text is lost.")

    @property
    def words(self) -> str:
        """The growth in words."""
        lost = f", {self.unknown / max(1, self.after):.1%} of them unknown" if self.unknown else ""
        return f"{self.name}: {self.after / max(1, self.before):.2f} times as many tokens{lost}"


class VocabularyReport(Frozen):
    """A cut vocabulary. Every text of the task's data becomes the same tokens as before: checked text by text."""

    tokens_before: int
    tokens_after: int
    parameters: int = Field(description="Parameters that went with the tokens.")
    texts: int = Field(description="Number of texts that were compared, token by token.")
    largest_difference: float = Field(description="Largest difference of the dense model's outputs before and after the cut.")
    gained_nats: float | None = Field(
        default=None,
        description="For outputs over the vocabulary: by how much the mean loss falls because other tokens are no answer any "
        "more. It is in the dense figure, too.",
    )
    growth: tuple[GrowthReport, ...] = Field(description="Texts that nobody asked for.")

    @property
    def words(self) -> str:
        """What was cut, in words."""
        grown = "; ".join(own.words for own in self.growth)
        return (
            f"{self.tokens_after:,} of {self.tokens_before:,} tokens stay, {self.parameters:,} parameters went with the "
            f"others; {self.texts:,} texts of the data become the same tokens as before. Other texts grow: {grown}"
        )
