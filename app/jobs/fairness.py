"""The order of claims, apart from any database: turns among tenants by their shares. `benchmarks.fleet` simulates with it.

Start-time fair queueing (Goyal, Vin, Cheng: "Start-time fair queuing", IEEE/ACM Transactions on Networking 5(5), 1997, section
II), with a claim as the unit of service. A tenant's next turn starts one `1 / share` after its last one did, but never before
the round's clock, which is the start of the latest turn of anybody. The earliest start goes first. So

- of tenants that always wait, each has claims in proportion to its share, to within one turn;
- who comes new, or has been idle, starts at the clock: next to those who are about to have their turn, without credit for the
  time before;
- nobody waits for ever: each claim puts the start of whoever made it behind those of all others.

Departure: the clock is read at a claim, where the paper reads it when a packet arrives. A tenant that may not run more just
now, or that this kind of worker cannot serve, then collects no credit either.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

DEFAULT_SHARE = 1.0
LEAST_SHARE, LARGEST_SHARE = 0.001, 1000.0


@dataclass(frozen=True, slots=True)
class Round:
    """The turns that tenants have had of one kind of worker.

    Attributes:
        turns: Start of the last turn of each tenant that has had one.
        shares: Shares of the tenants that have another than the default.
    """

    turns: Mapping[str, float] = field(default_factory=dict[str, float])
    shares: Mapping[str, float] = field(default_factory=dict[str, float])

    @property
    def clock(self) -> float:
        """The start of the latest turn."""
        return max(self.turns.values(), default=0.0)

    def start(self, owner: str, clock: float | None = None) -> float:
        """Return when a tenant's next turn starts, on the round's own scale.

        Args:
            owner: The tenant.
            clock: The round's clock, where the caller has it already.
        """
        now = self.clock if clock is None else clock
        last = self.turns.get(owner)
        return now if last is None else max(now, last + 1 / self.share(owner))

    def share(self, owner: str) -> float:
        """Return the share of a tenant."""
        return self.shares.get(owner, DEFAULT_SHARE)

    def jobs_until(self, owner: str, moment: float, clock: float, *, wins_ties: bool) -> int:
        """Count the turns that a tenant with enough jobs has before another's that starts at a moment.

        Args:
            owner: The tenant.
            moment: Start of the other's turn.
            clock: The round's clock.
            wins_ties: Whether the tenant goes first where both start at once.
        """
        ahead = (moment - self.start(owner, clock)) * self.share(owner)
        if ahead < 0:
            return 0
        whole = int(ahead + 1e-9)
        return whole + (wins_ties or ahead - whole > 1e-9)


def order(heads: Mapping[str, tuple[float, str]], turns: Round) -> list[str]:
    """Order tenants that have a job to be claimed.

    Args:
        heads: When the first job of each tenant was made, and its id: they decide between tenants whose turns start at once.
        turns: The round.
    """
    clock = turns.clock
    return sorted(heads, key=lambda owner: (turns.start(owner, clock), *heads[owner]))
