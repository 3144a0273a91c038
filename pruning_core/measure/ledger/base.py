"""A part of a ledger: what both models do on the same rows, and the rows of the report that follow from it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from pruning_core.evidence.calibration import TokenSet, batched, evaluation_tokens
from pruning_core.measure.ledger.rows import Subject
from pruning_core.measure.quality import observe
from pruning_core.report.ledger import LedgerRow
from pruning_core.spec.prune import TaskSpec
from pruning_core.tasks.base import TaskModel
from pruning_core.tasks.batch import Encoded, TokenLabelled

Tell = Callable[[int], None]


class Part(ABC):
    """A part. The dense model is observed once a run, each pruned one once."""

    __slots__ = ()

    @property
    @abstractmethod
    def steps(self) -> int:
        """Number of steps of one observation, for progress."""

    @property
    @abstractmethod
    def subjects(self) -> tuple[Subject, ...]:
        """What its rows are about, in their order."""

    @abstractmethod
    def observe(self, model: TaskModel, on_step: Tell) -> Any:
        """Run a model.

        Raises:
            NotFinite: An output is NaN or infinite.
        """

    @abstractmethod
    def rows(self, dense: Any, pruned: Any, seed: int) -> list[LedgerRow]:
        """Judge two observations."""

    def lacking(self, reason: str, *, lost: bool) -> list[LedgerRow]:
        """Return the rows where outputs are not finite: the pruned model's, which has lost them, or the dense one's."""
        return [own.lacking(reason, verdict="lost" if lost else "unclear") for own in self.subjects]


@dataclass(frozen=True, slots=True)
class TokenPart(Part):
    """A part that is read off the outputs at samples of tokens.

    Attributes:
        name: What it is about.
        tokens: The samples.
        task: The job's task, whose family reads the outputs.
    """

    name: str
    tokens: TokenSet
    task: TaskSpec

    @property
    def steps(self) -> int:
        """Number of batches."""
        return len(self.tokens.batches)

    def seen(self, model: TaskModel, on_step: Tell) -> list[Tensor]:
        """Return what the task's family keeps of each sample."""
        return observe(model, self.tokens, self.task, on_step, name="ledger's")


def in_batches(model: TaskModel, encoded: Encoded) -> TokenSet:
    """Batch samples as an evaluation does."""
    return batched(encoded, batch_tokens=evaluation_tokens(model.device, model.entries))


def counted_samples(model: TaskModel, ids: Sequence[array[int]], counted: Sequence[array[int]]) -> TokenSet:
    """Batch samples of tokens without padding, of which some count."""
    return in_batches(model, TokenLabelled.unpadded(model.tokenizer, ids, counted))
