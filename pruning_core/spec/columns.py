"""`Columns`, the names of a data set's columns that a task reads. Torch-free."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints, model_validator

from pruning_core.spec.frozen import Frozen

NonEmptyStr = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=1024)]


class Columns(Frozen):
    """Names of the data set's columns: the input (one or two columns of text, or one of images) and the label.

    What is left out is guessed by the names of the columns, or by what they hold, and the guess is said.
    """

    text: tuple[NonEmptyStr, ...] = Field(
        default=(),
        max_length=2,
        description="Text columns: two for pairs and for questions with contexts, else one. Lists of words for tokens.",
    )
    image: NonEmptyStr | None = Field(default=None, description="Image column: bytes, or paths within the data set's folder.")
    label: NonEmptyStr | None = None

    @model_validator(mode="after")
    def _one_kind_of_input(self) -> Columns:
        if self.text and self.image is not None:
            raise ValueError("name the columns that the task reads: text, one or two, or image, and not both")
        return self

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of all input columns."""
        return self.text if self.image is None else (self.image,)
