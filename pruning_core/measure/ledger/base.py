"""A part of a ledger: what both models do on the same rows, and the rows of the report that follow from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from pruning_core.report.ledger import LedgerRow
from pruning_core.tasks.base import TaskModel

Tell = Callable[[int], None]


class Part(Protocol):
    """A part. The dense model is observed once a run, each pruned one once.

    Attributes:
        steps: Number of steps of one observation, for progress.
    """

    @property
    def steps(self) -> int: ...  # noqa: D102 - an attribute

    def observe(self, model: TaskModel, on_step: Tell) -> Any:
        """Run a model.

        Raises:
            NotFinite: An output is NaN or infinite.
        """
        ...

    def rows(self, dense: Any, pruned: Any, seed: int) -> list[LedgerRow]:
        """Judge two observations."""
        ...

    def lacking(self, reason: str, *, lost: bool) -> list[LedgerRow]:
        """Return the rows where outputs are not finite: the pruned model's, which has lost them, or the dense one's."""
        ...
