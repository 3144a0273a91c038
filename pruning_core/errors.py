"""Errors of the pruning core. Torch-free.

Each class has a stable ``code`` for programs to match on. Each error has a message for people, which says what was wrong and
what would be right, and optionally ``param``, the dotted path of the spec field to change. Only the edges (HTTP, command line)
translate errors; nothing in the core knows about status codes or retries.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from pruning_core.report.report import Report


class PruningError(Exception):
    """Base of every error that a user can act on.

    Args:
        message: What was wrong and what would be right. Never a stack trace, never a secret.
        param: Dotted path of the spec field to change, where there is one (``"target.keep"``).
    """

    code: ClassVar[str] = "pruning_failed"

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param


class Several(PruningError):
    """Several errors that do not depend on each other, told together. It is made by `together` alone.

    Attributes:
        errors: The errors, at least two. Code and param are those of the first.
    """

    def __init__(self, errors: Sequence[PruningError]) -> None:
        super().__init__("; ".join(error.message for error in errors), param=errors[0].param)
        self.errors = tuple(errors)
        self.code = errors[0].code  # pyright: ignore[reportIncompatibleVariableOverride, reportAttributeAccessIssue]


def together(checks: Iterable[Callable[[], object]]) -> None:
    """Run checks that do not depend on each other, and raise all that they find.

    Raises:
        PruningError: One has found something; `Several` where more than one has.
    """
    found: list[PruningError] = []
    for check in checks:
        try:
            check()
        except PruningError as error:
            found += each(error)
    if found:
        raise found[0] if len(found) == 1 else Several(found)


def each(error: PruningError) -> tuple[PruningError, ...]:
    """Return the errors that an error stands for: itself, but for `Several`."""
    return error.errors if isinstance(error, Several) else (error,)


class ModelUnreadable(PruningError):
    """The checkpoint is missing, corrupt, or in a format that is refused (pickle)."""

    code = "model_unreadable"


class UnsupportedArchitecture(PruningError):
    """The model has no block structure that Coppice can prune, or not in the way that was asked for."""

    code = "unsupported_architecture"


class DatasetInvalid(PruningError):
    """The data set is missing, empty, or lacks a column that the task needs."""

    code = "dataset_invalid"


class NotFinite(PruningError):
    """Weights, activations, statistics, scores, times or outputs hold NaN or infinity; the message names the layer."""

    code = "not_finite"


class MetricUndefined(PruningError):
    """The metric says nothing here: it is no number for the dense model, or a share of it is no floor."""

    code = "metric_undefined"


class TargetUnreachable(PruningError):
    """No mask of this method can meet the target on this model."""

    code = "target_unreachable"


class EngineUnusable(PruningError):
    """The engine that a latency is asked for in is not installed where the job runs, or could not be timed there."""

    code = "engine_unusable"


class Rejected(PruningError):
    """A checkpoint was made, but misses a requirement. Its bundle and its report are kept as the best candidate.

    Args:
        message: What was missed, and what would be right.
        param: Dotted path of the spec field to change.
        report: Report on the candidate, set by the code that keeps it.
    """

    def __init__(self, message: str, *, param: str | None = None, report: Report | None = None) -> None:
        super().__init__(message, param=param)
        self.report = report


class TargetMissed(Rejected):
    """The written checkpoint does not meet the requested target within its tolerance."""

    code = "target_missed"


class QualityFloorMissed(Rejected):
    """The written checkpoint keeps less quality than the floor asks for."""

    code = "quality_floor"


class Diverged(Rejected):
    """The training diverged. The best weights before the divergence are kept."""

    code = "diverged"


class Unloadable(Rejected):
    """A fresh process with stock libraries could not load the bundle, or found other values in it than the worker."""

    code = "unloadable"


class StorageFull(PruningError):
    """The disk that the bundle is written to has no room for it."""

    code = "storage_full"


class OutOfMemory(PruningError):
    """The device or the host ran out of memory."""

    code = "oom"
