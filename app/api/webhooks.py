"""Routes of webhooks: create, list, read, show the secret, try, delete."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path

from app.api.deps import Owner, Webhooks, Writer, sent_json
from app.errors import ProblemDetails
from app.webhooks.schemas import (
    DeliveryList,
    DeliveryView,
    WebhookCreate,
    WebhookCreated,
    WebhookList,
    WebhookSecret,
    WebhookView,
)

router = APIRouter(prefix="/v1/webhooks", tags=["webhooks"], responses={"default": {"model": ProblemDetails}})

WebhookId = Annotated[str, Path(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_\-]+$")]


@router.post("", status_code=201, operation_id="createWebhook", dependencies=[Depends(sent_json)])
def create_webhook(body: WebhookCreate, webhooks: Webhooks, writer: Writer) -> WebhookCreated:
    """Have the ends of your jobs sent to an address, by the Standard Webhooks specification."""
    return WebhookCreated.with_secret(*webhooks.create(str(body.url), body.events, caller=writer))


@router.get("", operation_id="listWebhooks")
def list_webhooks(webhooks: Webhooks, owner: Owner) -> WebhookList:
    """List your webhooks."""
    return WebhookList(data=[WebhookView.of(webhook) for webhook in webhooks.list(owner=owner)])


@router.get("/{webhook_id}", operation_id="getWebhook")
def get_webhook(webhook_id: WebhookId, webhooks: Webhooks, owner: Owner) -> WebhookView:
    """Read a webhook. One that answered 410 is disabled."""
    return WebhookView.of(webhooks.get(webhook_id, owner=owner))


@router.get("/{webhook_id}/deliveries", operation_id="listDeliveries")
def list_deliveries(webhook_id: WebhookId, webhooks: Webhooks, owner: Owner) -> DeliveryList:
    """List what was sent lately, and what became of it."""
    return DeliveryList(data=[DeliveryView.of(state) for state in webhooks.deliveries(webhook_id, owner=owner)])


@router.post("/{webhook_id}/secret", operation_id="showWebhookSecret")
def show_secret(webhook_id: WebhookId, webhooks: Webhooks, writer: Writer) -> WebhookSecret:
    """Read what messages are signed with. It changes when the operator replaces the service's own; meanwhile both count."""
    return WebhookSecret(id=webhook_id, secret=webhooks.secret(webhook_id, caller=writer))


@router.post("/{webhook_id}/test", status_code=202, operation_id="testWebhook")
def test_webhook(webhook_id: WebhookId, webhooks: Webhooks, writer: Writer) -> DeliveryView:
    """Send a message that means nothing; see the deliveries for what becomes of it."""
    return DeliveryView.of(webhooks.test(webhook_id, caller=writer))


@router.delete("/{webhook_id}", status_code=204, operation_id="deleteWebhook")
def delete_webhook(webhook_id: WebhookId, webhooks: Webhooks, writer: Writer) -> None:
    """Delete a webhook, and what was still to be sent to it."""
    webhooks.delete(webhook_id, caller=writer)
