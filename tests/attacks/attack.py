"""What an attack is, and what must come of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.attacks.wire import CLOSED, Answer

if TYPE_CHECKING:
    from tests.attacks.target import Target


@dataclass(frozen=True, slots=True)
class Expected:
    """The answers that are clear refusals.

    Attributes:
        statuses: Statuses; CLOSED where it is fair to close the connection without a word.
        codes: Codes of problems, for statuses from 400.
        bare: Statuses that servers give before any of our code runs, without a problem.
    """

    statuses: frozenset[int]
    codes: frozenset[str] = frozenset()
    bare: frozenset[int] = frozenset()

    def misses(self, answer: Answer) -> str | None:
        """Return why an answer is not what was expected, or None where it is."""
        if answer.status not in self.statuses:
            return f"status {answer.status} {answer.body[:200]!r}, expected one of {sorted(self.statuses)}"
        if answer.status < 400 or answer.status in self.bare or answer.status == CLOSED:
            return None
        if answer.code not in self.codes:
            return f"{answer.status} with code {answer.code!r} {answer.body[:200]!r}, expected one of {sorted(self.codes)}"
        return None if answer.document.get("detail") else "a problem without a detail"


def refused(*codes: str, statuses: Iterable[int] = (422,), bare: Iterable[int] = (), closes: bool = False) -> Expected:
    """Make the expectation of a refusal. A house or a disk that is full is a clear one too."""
    known = frozenset(codes) | {"busy", "rate_limited", "quota_exceeded", "storage_full"}
    also = (CLOSED,) if closes else ()
    return Expected(frozenset({*statuses, 429, 503, 507, *also}), known, frozenset(bare))


# What becomes of an upload that is none. Whoever reads it may call it unreadable, too large or not an upload.
UPLOAD = refused(
    *(
        "upload_invalid",
        "upload_too_large",
        "model_unreadable",
        "dataset_invalid",
        "unsupported_architecture",
        "too_large",
        "body_too_large",
    ),
    statuses=(413, 422),
)


@dataclass(frozen=True, slots=True)
class Attack:
    """One attack on the API.

    Attributes:
        name: Name in the table.
        row: Row of ``service.md`` that it is of; empty for further ones.
        act: What is done; it returns each answer that must be as expected. An AssertionError says what went wrong otherwise.
        expected: What each answer must be.
        make: Makes what is sent, before the watch begins.
        short: Whether it is one of the small set of CI.
        limit_s: In what time all of it must have ended.
    """

    name: str
    act: Callable[[Target, Any], Answer | Iterable[Answer]]
    expected: Expected
    make: Callable[[], Any] = field(default=lambda: None)
    row: str = ""
    short: bool = False
    limit_s: float = 30


@dataclass(frozen=True, slots=True)
class JobAttack:
    """One attack on a worker, by the files of a model and a data set, or by a spec.

    Attributes:
        name: Name in the table.
        change: Changes copies of an honest model and data set in place, and returns what of the spec is different.
        codes: Codes of refusals, at the upload, at the submit, or of the job's error.
        ends: How the job may end where it was taken.
        row: Row of ``service.md`` that it is of; empty for further ones.
        limit_s: In what time the job must have ended.
    """

    name: str
    change: Callable[..., dict[str, Any] | None]
    codes: frozenset[str]
    ends: frozenset[str] = frozenset({"failed"})
    row: str = ""
    limit_s: float = 120
