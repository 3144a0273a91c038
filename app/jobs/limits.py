"""Limits of a job's own: how often it is tried, and how long one attempt may take. They narrow the operator's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from app.refusals import Refusals, Refused
from app.settings import Settings


@dataclass(frozen=True, slots=True)
class JobLimits:
    """The limits of one job; None: the operator's."""

    max_attempts: int | None = None
    timeout_s: float | None = None

    def most_attempts(self, settings: Settings) -> int:
        """Return how many crashes, or lost leases, end the job."""
        return settings.max_attempts if self.max_attempts is None else min(self.max_attempts, settings.max_attempts)


NO_LIMITS = JobLimits()


class Limited(Protocol):
    """What names limits: a request, or a job."""

    max_attempts: int | None
    timeout_s: float | None


def limits_of(limited: Limited) -> JobLimits:
    """Return the limits that a request names."""
    return JobLimits(limited.max_attempts, limited.timeout_s)


def check_limits(limits: JobLimits, settings: Settings) -> None:
    """Refuse limits that are wider than the operator's, which would not hold. Raises `Refused`."""
    found = Refusals()
    with found.gathered():
        if limits.max_attempts is not None and limits.max_attempts > settings.max_attempts:
            message = f"max_attempts may be at most {settings.max_attempts} on this server"
            raise Refused("limit_too_wide", message, "/max_attempts")
    with found.gathered():
        if limits.timeout_s is not None and limits.timeout_s > settings.job_timeout_s:
            message = f"timeout_s may be at most {settings.job_timeout_s:g} on this server"
            raise Refused("limit_too_wide", message, "/timeout_s")
    found.end()
