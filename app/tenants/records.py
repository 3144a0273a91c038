"""Deletions of tenants as frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Deletion:
    """The deletion of one tenant, and what it has deleted so far, by kind."""

    owner: str
    requested_at: float
    with_audit: bool
    finished_at: float | None
    counts: Mapping[str, int]
