"""Errors of the pruning core, torch-free.

Each class carries a stable ``code`` (what programs match on), a message that says what was wrong and what would be
right (what people read), and optionally ``param``: the field of the spec to change, as a dotted path. Only the edges
(HTTP, command line) translate them; nothing in the core knows about status codes or retries.
"""

from __future__ import annotations

from typing import ClassVar


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


class TargetUnreachable(PruningError):
    """No mask of this method can meet the target on this model."""

    code = "target_unreachable"


class TargetMissed(PruningError):
    """The written checkpoint does not meet the requested target within its tolerance."""

    code = "target_missed"


class OutOfMemory(PruningError):
    """The device or the host ran out of memory."""

    code = "oom"
