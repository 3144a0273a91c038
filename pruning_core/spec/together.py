"""Several errors of one validator, told together: who mends a spec should not learn of its mistakes one by one. Torch-free."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from pydantic import ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError


class Together:
    """Gathers what is wrong with a value. ``end`` raises all of it, and pydantic puts it among the errors of the whole."""

    def __init__(self) -> None:
        self._found: list[InitErrorDetails] = []

    def say(self, message: str, *location: str) -> None:
        """Add an error.

        Args:
            message: The sentence.
            location: The field of the value that is to be changed; empty: the value itself.
        """
        kind = PydanticCustomError("value_error", "{said}", {"said": message})
        self._found.append(InitErrorDetails(type=kind, loc=location, input=None))

    @contextmanager
    def gathered(self, *location: str) -> Generator[None]:
        """Add what a check raises as an error at a location, and go on behind it."""
        try:
            yield
        except ValueError as error:
            self.say(str(error), *location)

    def end(self) -> None:
        """Raise what was gathered.

        Raises:
            ValidationError: Something was.
        """
        if self._found:
            raise ValidationError.from_exception_data("value", self._found)
