"""``make bench-fleet``: waiting times of tenants on a fleet of workers, by the policy of claims, simulated.

No service runs: events on a clock, and the order of claims. Round robin and weighted turns are the product's own
(`app.jobs.fairness`), with all shares 1 and with the shares of the tenants; first in, first out with priority is how claims
went before (ADR 133). One draw of jobs is played by each policy. Prints a table and writes ``benchmarks/results/fleet.json``.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import random
import statistics
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from app.jobs.fairness import Round, order

HOUR_S = 3600.0


@dataclass(frozen=True, slots=True)
class Tenant:
    """A kind of tenant.

    Attributes:
        name: Shown in the table.
        share: Of the turns.
        jobs: Jobs in the time that is simulated.
        burst: Jobs that come at once.
        minutes: Median of a job's length; lengths are log-normal.
        priority: Of its jobs.
    """

    name: str
    share: float
    jobs: int
    burst: int
    minutes: float
    priority: int = 0


# A sweep that asks for the highest priority, a pipeline that runs every night, a team that pays for three shares, and people.
TENANTS = (
    Tenant("sweep, priority 9", 1, 6000, 3000, 20, 9),
    Tenant("nightly pipeline", 1, 2400, 800, 15),
    Tenant("team with 3 shares", 3, 2400, 60, 30),
    *(Tenant(f"person {number}", 1, 60, 2, 10) for number in range(1, 11)),
)


@dataclass(frozen=True, slots=True)
class Job:
    """One job."""

    number: int
    tenant: int
    came_s: float
    lasts_s: float


class Policy(Protocol):
    """An order of claims."""

    def add(self, job: Job) -> None:
        """Let a job wait."""
        ...

    def take(self) -> Job | None:
        """Claim the next job."""
        ...


class FifoWithPriority:
    """Priority, then age, over all tenants."""

    def __init__(self, tenants: Sequence[Tenant]) -> None:
        self._tenants = tenants
        self._waiting: list[tuple[int, float, int, Job]] = []

    def add(self, job: Job) -> None:
        """Let a job wait."""
        heapq.heappush(self._waiting, (-self._tenants[job.tenant].priority, job.came_s, job.number, job))

    def take(self) -> Job | None:
        """Claim the next job."""
        return heapq.heappop(self._waiting)[-1] if self._waiting else None


class Turns:
    """The product's order."""

    def __init__(self, shares: Mapping[str, float]) -> None:
        self._shares = shares
        self._starts: dict[str, float] = {}
        self._waiting: dict[str, deque[Job]] = defaultdict(deque)

    def add(self, job: Job) -> None:
        """Let a job wait."""
        self._waiting[str(job.tenant)].append(job)

    def take(self) -> Job | None:
        """Claim the next job."""
        heads = {owner: (jobs[0].came_s, str(jobs[0].number)) for owner, jobs in self._waiting.items() if jobs}
        if not heads:
            return None
        turns = Round(self._starts, self._shares)
        owner = order(heads, turns)[0]
        self._starts[owner] = turns.start(owner)
        return self._waiting[owner].popleft()


def draw(tenants: Sequence[Tenant], hours: float, seed: int) -> list[Job]:
    """Draw the jobs of some hours, by the time at which they come."""
    chance = random.Random(seed)  # noqa: S311 - a simulation
    drawn: list[tuple[float, int, float]] = []
    for place, tenant in enumerate(tenants):
        for _ in range(math.ceil(tenant.jobs / tenant.burst)):
            came_s = chance.uniform(0, hours * HOUR_S)
            lasts = [60 * tenant.minutes * chance.lognormvariate(0, 0.8) for _ in range(tenant.burst)]
            drawn += [(came_s, place, length_s) for length_s in lasts]
    return [Job(number, place, came_s, lasts_s) for number, (came_s, place, lasts_s) in enumerate(sorted(drawn))]


def play(jobs: Sequence[Job], workers: int, policy: Policy) -> dict[int, float]:
    """Run all jobs. Return the seconds that each has waited, by its number."""
    waited: dict[int, float] = {}
    ends: list[float] = []
    coming, now_s = 0, 0.0
    while len(waited) < len(jobs):
        while len(ends) < workers and (job := policy.take()) is not None:
            waited[job.number] = now_s - job.came_s
            heapq.heappush(ends, now_s + job.lasts_s)
        next_s = jobs[coming].came_s if coming < len(jobs) else math.inf
        now_s = min(next_s, ends[0] if ends else math.inf)
        while ends and ends[0] <= now_s:
            heapq.heappop(ends)
        while coming < len(jobs) and jobs[coming].came_s <= now_s:
            policy.add(jobs[coming])
            coming += 1
    return waited


@dataclass(frozen=True, slots=True)
class Waits:
    """Waiting times of one kind of tenant under one policy, in minutes."""

    tenant: str
    policy: str
    jobs: int
    median: float
    p95: float
    longest: float


def compare(tenants: Sequence[Tenant], *, workers: int, hours: float, seed: int) -> list[Waits]:
    """Play one draw by each policy."""
    shares = {str(place): tenant.share for place, tenant in enumerate(tenants)}
    policies: dict[str, Callable[[], Policy]] = {
        "FIFO with priority": lambda: FifoWithPriority(tenants),
        "round robin": lambda: Turns({}),
        "weighted turns": lambda: Turns(shares),
    }
    jobs = draw(tenants, hours, seed)
    kinds = ["ten people" if tenant.name.startswith("person") else tenant.name for tenant in tenants]
    found: list[Waits] = []
    for policy, make in policies.items():
        waited = play(jobs, workers, make())
        minutes: dict[str, list[float]] = defaultdict(list)
        for job in jobs:
            minutes[kinds[job.tenant]].append(waited[job.number] / 60)
        found += [
            Waits(kind, policy, len(own), statistics.median(own), statistics.quantiles(own, n=20)[-1], max(own))
            for kind, own in minutes.items()
        ]
    return found


def main() -> None:
    """Compare, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=200)
    parser.add_argument("--hours", type=float, default=24)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/fleet.json"))
    options = parser.parse_args()
    found = compare(TENANTS, workers=options.workers, hours=options.hours, seed=options.seed)
    work_h = sum(job.lasts_s for job in draw(TENANTS, options.hours, options.seed)) / HOUR_S
    load = work_h / (options.workers * options.hours)
    print(f"{options.workers} workers, {options.hours:g} h, {work_h:.0f} h of work: {load:.0%} of what they can do")
    print("minutes waited\n")
    print(f"{'tenant':22}{'jobs':>6}  {'policy':20}{'median':>9}{'p95':>9}{'longest':>9}")
    for row in sorted(found, key=lambda row: row.tenant):
        print(f"{row.tenant:22}{row.jobs:6}  {row.policy:20}{row.median:9.1f}{row.p95:9.1f}{row.longest:9.1f}")
    document = {"workers": options.workers, "hours": options.hours, "seed": options.seed, "load": load}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(document | {"minutes": [asdict(row) for row in found]}, indent=1) + "\n")
    print(f"\nwritten to {options.out}")


if __name__ == "__main__":
    main()
