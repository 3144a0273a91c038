"""Errors of the pruning core, torch-free.

Each class carries a stable ``code`` (what programs match on), a message that says what was wrong and what would be
right (what people read), and optionally ``param``: the field of the spec to change, as a dotted path. Only the edges
(HTTP, command line) translate them; nothing in the core knows about status codes or retries.
"""

from __future__ import annotations

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


class ModelUnreadable(PruningError):
    """The checkpoint is missing, corrupt, or in a format that is refused (pickle)."""

    code = "model_unreadable"


class UnsupportedArchitecture(PruningError):
    """The model has no block structure that an adapter knows."""

    code = "unsupported_architecture"


class DatasetInvalid(PruningError):
    """The data set is missing, empty, or lacks a column that the task needs."""

    code = "dataset_invalid"


class NotFinite(PruningError):
    """Weights, activations, statistics, scores, times or outputs hold NaN or infinity; the message names the layer."""

    code = "not_finite"


class TargetUnreachable(PruningError):
    """No mask of this method can meet the target on this model."""

    code = "target_unreachable"


class Rejected(PruningError):
    """A checkpoint was made, and does not keep what was promised. Its bundle and its report are kept as the best candidate.

    Args:
        message: What was missed, and what would be right.
        param: Field of the spec to change.
        report: On the candidate; set by whoever has kept it.
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
    """A training diverged. What is kept are the best weights before it did."""

    code = "diverged"


class Unloadable(Rejected):
    """A fresh process with stock libraries could not load the bundle, or found something else in it than was said."""

    code = "unloadable"


class StorageFull(PruningError):
    """The disk that the bundle is written to has no room for it."""

    code = "storage_full"


class OutOfMemory(PruningError):
    """The device or the host ran out of memory."""

    code = "oom"
