"""The tally of all jobs: counts and distributions, folded from the event log.

The fold of the log is the same in every process: counters that never go back, whichever API process is asked, however many
there are. Deletions and retention take events away, though: a process that starts later counts those that are left, which
Prometheus takes for a counter that was reset.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import assert_never

from app.jobs.records import EventType
from app.jobs.states import JobStatus
from app.jobs.statistics import LoggedEvent

_SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 4 * 3600)
# An event may become visible after events with greater ids, because ids are drawn before the commit; it does within this time.
# No transaction of the service lasts half as long.
_SETTLED_AFTER_S = 60


@dataclass(slots=True)
class Distribution:
    """A histogram of durations: how often each bound in seconds was kept."""

    bounds: tuple[float, ...] = _SECONDS
    counts: list[int] = field(default_factory=lambda: [0] * (len(_SECONDS) + 1))
    sum_s: float = 0.0

    def add(self, seconds: float) -> None:
        """Count one duration; the database's clock may have been put back in between."""
        seconds = max(0.0, seconds)
        place = next((place for place, bound in enumerate(self.bounds) if seconds <= bound), len(self.bounds))
        self.counts[place] += 1
        self.sum_s += seconds


@dataclass(slots=True)
class _Open:
    """A job that has not ended, as far as the log was read."""

    queued_at: float | None = None
    started_at: float | None = None


class Tally:
    """The fold of the event log. Feed it every page of the log in order; pages may overlap."""

    def __init__(self) -> None:
        self.attempts = 0
        self.finished: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self.requeues: Counter[str] = Counter()
        self.wait_s = Distribution()
        self.run_s = Distribution()
        self.stage_s: defaultdict[str, Distribution] = defaultdict(Distribution)
        self.settled = 0  # all events up to this id were counted, and no other one among them can still appear
        self._recent: dict[int, float] = {}
        self._open: dict[str, _Open] = {}

    def add(self, events: Iterable[LoggedEvent], stages: Mapping[str, Mapping[str, float]]) -> None:
        """Count what was not counted yet.

        Args:
            events: A page of the log.
            stages: Of those of its jobs that succeeded, the seconds of each stage.
        """
        for event in events:
            if event.id not in self._recent:
                self._recent[event.id] = event.created_at
                self._count(event, stages)

    def settle(self, clock: float) -> None:
        """Forget the ids that are too old to have unseen ones before them, by the database's clock."""
        for event_id in sorted(self._recent):
            if self._recent[event_id] > clock - _SETTLED_AFTER_S:
                return
            self.settled = event_id
            del self._recent[event_id]

    def _count(self, event: LoggedEvent, stages: Mapping[str, Mapping[str, float]]) -> None:
        kind = event.type
        match kind:
            case EventType.QUEUED | EventType.RETRIED:
                self._open[event.job_id] = _Open(queued_at=event.created_at)
            case EventType.REQUEUED:
                self._open[event.job_id] = _Open(queued_at=event.created_at)
                self.requeues[event.reason] += 1
            case EventType.STARTED:
                self.attempts += 1
                job = self._open.setdefault(event.job_id, _Open())
                if job.queued_at is not None:
                    self.wait_s.add(event.created_at - job.queued_at)
                job.started_at = event.created_at
            case EventType.SUCCEEDED:
                self._count_end(event, JobStatus.SUCCEEDED)
                for stage, seconds in stages.get(event.job_id, {}).items():
                    self.stage_s[stage].add(seconds)
            case EventType.FAILED:
                self._count_end(event, JobStatus.FAILED)
                self.failures[event.reason] += 1
            case EventType.CANCELLED:
                self._count_end(event, JobStatus.CANCELLED)
            case EventType.STAGE | EventType.CANCELLING:
                pass
            case _:
                assert_never(kind)

    def _count_end(self, event: LoggedEvent, status: JobStatus) -> None:
        self.finished[str(status)] += 1
        job = self._open.pop(event.job_id, _Open())
        if job.started_at is not None:
            self.run_s.add(event.created_at - job.started_at)
