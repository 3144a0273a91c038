"""What one attempt is allowed: the operator's limits, narrowed by the job's own."""

from __future__ import annotations

import math
import time

from app.jobs.limits import JobLimits
from app.jobs.records import JobError
from app.settings import Settings


class Allowance:
    """The time and the number of attempts of one job. The time of the job's own runs from here on."""

    def __init__(self, settings: Settings, limits: JobLimits) -> None:
        self._limits = limits
        self._ends_at = time.monotonic() + (math.inf if limits.timeout_s is None else limits.timeout_s)
        self.max_attempts = limits.most_attempts(settings)

    def left_s(self, most_s: float) -> float:
        """Return the time that is left, of which one process may take ``most_s``."""
        return min(most_s, self._ends_at - time.monotonic())

    def exceeded(self, said: str, most_s: float) -> JobError:
        """Say which limit ended a process.

        Args:
            said: What took too long, up to the number of seconds.
            most_s: The operator's limit of the process.
        """
        if time.monotonic() >= self._ends_at:
            message = f"the job took longer than the {self._limits.timeout_s:g} s that it was submitted with; raise timeout_s"
            return JobError("timeout", message, "timeout_s")
        return JobError("timeout", f"{said} the {most_s:g} s that this server allows")
