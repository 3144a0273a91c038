"""Webhooks and deliveries as frozen values."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Webhook:
    """An address that is sent a tenant's events."""

    id: str
    owner: str
    url: str
    events: tuple[str, ...]
    created_at: float
    disabled_at: float | None
    disabled_why: str | None


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event on its way to one webhook."""

    id: str
    webhook_id: str
    url: str
    payload: str
    attempts: int  # number of attempts before this one
    created_at: float


@dataclass(frozen=True, slots=True)
class DeliveryState:
    """The state of a delivery."""

    id: str
    created_at: float
    attempts: int
    delivered_at: float | None
    due_at: float | None
    last_outcome: str | None


@dataclass(frozen=True, slots=True)
class Backlog:
    """The outbox of all tenants: the messages still to be sent, and the age of the oldest."""

    messages: int
    oldest_s: float
    disabled: int  # number of disabled webhooks
