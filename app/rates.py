"""Rate limits: one token bucket per caller, in the memory of this process."""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass

_WINDOW_S = 60
_MOST_BUCKETS = 10_000
_REST = "the rest"


@dataclass(frozen=True, slots=True)
class Allowance:
    """The requests left to a caller. ``reset_s``: seconds until all are there again, or, after a refusal, one."""

    granted: bool
    limit: int
    remaining: int
    reset_s: int

    def headers(self) -> dict[str, str]:
        """Return the headers that tell the caller (draft-ietf-httpapi-ratelimit-headers)."""
        return {
            "RateLimit-Policy": f'"requests";q={self.limit};w={_WINDOW_S}',
            "RateLimit": f'"requests";r={self.remaining};t={self.reset_s}',
        }


class RateLimiter:
    """Buckets that hold ``per_minute`` requests and refill evenly.

    Full buckets are forgotten, as a new one is the same. Once there are ``most`` others, newcomers share one bucket: a flood of
    names takes no more memory, and resets nobody's bucket.
    """

    def __init__(self, per_minute: int, most: int = _MOST_BUCKETS) -> None:
        self._limit = per_minute
        self._rate = per_minute / _WINDOW_S
        self._most = most
        self._buckets: dict[str, tuple[float, float]] = {}  # number of tokens, and the time at which it was counted
        self._forgot_at = -math.inf
        self._lock = threading.Lock()

    def take(self, who: str) -> Allowance:
        """Count one request."""
        moment = time.monotonic()
        with self._lock:
            if who not in self._buckets and len(self._buckets) >= self._most:
                self._forget_the_full(moment)
                if len(self._buckets) >= self._most:
                    who = _REST
            tokens = self._tokens(who, moment)
            granted = tokens >= 1
            left = tokens - 1 if granted else tokens
            self._buckets[who] = (left, moment)
        missing = self._limit - left if granted else 1 - left
        return Allowance(granted, self._limit, int(left), max(1, math.ceil(missing / self._rate)))

    def _tokens(self, who: str, moment: float) -> float:
        tokens, counted_at = self._buckets.get(who, (float(self._limit), moment))
        return min(float(self._limit), tokens + (moment - counted_at) * self._rate)

    def _forget_the_full(self, moment: float) -> None:
        if moment - self._forgot_at < 1:  # it looks at all of them
            return
        self._forgot_at = moment
        self._buckets = {who: found for who, found in self._buckets.items() if self._tokens(who, moment) < self._limit}
