"""Webhooks as the API shows them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import AnyUrl, BaseModel, ConfigDict, Field, UrlConstraints

from app.webhooks.records import DeliveryState, Webhook

WebhookEvent = Literal["job.succeeded", "job.failed", "job.cancelled"]
ALL_EVENTS: tuple[WebhookEvent, ...] = ("job.succeeded", "job.failed", "job.cancelled")

_LONGEST_URL = 2000


WebUrl = Annotated[AnyUrl, UrlConstraints(max_length=_LONGEST_URL, allowed_schemes=["http", "https"], host_required=True)]


class WebhookCreate(BaseModel):
    """Where to send which events."""

    model_config = ConfigDict(extra="forbid")

    url: WebUrl = Field(description="Is sent POST requests; redirects are not followed.")
    events: list[WebhookEvent] = Field(default=list(ALL_EVENTS), min_length=1, max_length=len(ALL_EVENTS))


class WebhookView(BaseModel):
    """One webhook, without its secret."""

    id: str
    object: Literal["webhook"] = "webhook"
    url: str
    events: list[str]
    created_at: datetime
    disabled_at: datetime | None
    disabled_why: str | None

    @classmethod
    def of(cls, webhook: Webhook) -> WebhookView:
        """Show a webhook."""
        return cls.model_validate(_fields(webhook))


class WebhookCreated(WebhookView):
    """A new webhook, with what its messages are signed with."""

    secret: str

    @classmethod
    def with_secret(cls, webhook: Webhook, secret: str) -> WebhookCreated:
        """Show a new webhook."""
        return cls.model_validate({**_fields(webhook), "secret": secret})


class WebhookSecret(BaseModel):
    """What the messages of a webhook are signed with."""

    id: str = Field(description="Of the webhook.")
    object: Literal["webhook.secret"] = "webhook.secret"
    secret: str


class WebhookList(BaseModel):
    """Webhooks, oldest first."""

    object: Literal["list"] = "list"
    data: list[WebhookView]


class DeliveryView(BaseModel):
    """One message, and what became of it so far."""

    id: str = Field(description="The `webhook-id` that the receiver sees.")
    object: Literal["webhook.delivery"] = "webhook.delivery"
    created_at: datetime
    attempts: int
    delivered_at: datetime | None
    next_attempt_at: datetime | None
    last_outcome: str | None

    @classmethod
    def of(cls, state: DeliveryState) -> DeliveryView:
        """Show a delivery."""
        return cls(
            id=state.id,
            created_at=datetime.fromtimestamp(state.created_at, UTC),
            attempts=state.attempts,
            delivered_at=_moment(state.delivered_at),
            next_attempt_at=_moment(state.due_at),
            last_outcome=state.last_outcome,
        )


class DeliveryList(BaseModel):
    """The latest messages of a webhook, newest first."""

    object: Literal["list"] = "list"
    data: list[DeliveryView]


def _fields(webhook: Webhook) -> dict[str, object]:
    return {
        "id": webhook.id,
        "url": webhook.url,
        "events": list(webhook.events),
        "created_at": _moment(webhook.created_at),
        "disabled_at": _moment(webhook.disabled_at),
        "disabled_why": webhook.disabled_why,
    }


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
