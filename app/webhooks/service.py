"""Use cases of webhooks: create, list, show the secret, test, delete."""

from __future__ import annotations

import base64
import ipaddress
import json
from collections.abc import Sequence
from urllib.parse import urlsplit
from uuid import uuid4

from app.audit.records import Action
from app.audit.repository import AuditRepository
from app.db import Database
from app.keys.records import Caller
from app.refusals import NotFound, QuotaExceeded, Refused
from app.secret import ServerSecret
from app.settings import Settings
from app.tenants.repository import TenantRepository
from app.webhooks.guard import is_allowed
from app.webhooks.records import DeliveryState, Webhook
from app.webhooks.repository import WebhookRepository

_MOST = 20
_SHOWN_DELIVERIES = 50
_MOST_WAITING = 50  # with so many, a test has nothing to add
TEST_EVENT = "webhook.test"


class WebhookSecrets:
    """The secrets that messages are signed with. They are derived from the server's secret, so none is stored."""

    def __init__(self, secret: ServerSecret) -> None:
        self._secret = secret

    def of(self, webhook_id: str) -> str:
        """Return the secret of one webhook, in the specification's form."""
        return self.all_of(webhook_id)[0]

    def all_of(self, webhook_id: str) -> tuple[str, ...]:
        """Return the secret of one webhook, and behind it those that its receiver may still hold.

        While the server's secret is replaced, messages are signed with each of them.
        """
        digests = self._secret.digests("webhook", webhook_id)
        return tuple(f"whsec_{base64.b64encode(digest).decode()}" for digest in digests)


class WebhookService:
    """Webhooks of all tenants."""

    def __init__(self, settings: Settings, database: Database, secrets: WebhookSecrets) -> None:
        self._settings = settings
        self._database = database
        self._secrets = secrets

    def create(self, url: str, events: Sequence[str], *, caller: Caller) -> tuple[Webhook, str]:
        """Create a webhook, and return it with its secret.

        Raises:
            Refused: The address is written out and not allowed. A name is judged when it is connected to.
            QuotaExceeded: The owner has enough of them.
            Conflict: The owner is being deleted.
        """
        self._check(url)
        webhook_id = f"whk_{uuid4().hex}"
        with self._database.write() as connection:
            TenantRepository(connection).hold_open(caller.owner)
            repository = WebhookRepository(connection)
            if len(repository.list(owner=caller.owner)) >= _MOST:
                raise QuotaExceeded("quota_exceeded", f"{_MOST} webhooks are as many as there may be; delete one first")
            repository.insert(webhook_id, owner=caller.owner, url=url, events=events)
            AuditRepository(connection).record(Action.WEBHOOK_CREATED, caller.owner, caller.key_id, webhook_id)
            webhook = repository.get(webhook_id, owner=caller.owner)
        assert webhook is not None
        return webhook, self._secrets.of(webhook_id)

    def list(self, *, owner: str) -> list[Webhook]:
        """List the webhooks of an owner."""
        with self._database.read() as connection:
            return WebhookRepository(connection).list(owner=owner)

    def get(self, webhook_id: str, *, owner: str) -> Webhook:
        """Read a webhook. Raises `NotFound`."""
        with self._database.read() as connection:
            return _known(WebhookRepository(connection).get(webhook_id, owner=owner))

    def secret(self, webhook_id: str, *, caller: Caller) -> str:
        """Return what the receiver is to check messages with, and write down that it was shown. Raises `NotFound`."""
        with self._database.write() as connection:
            _known(WebhookRepository(connection).get(webhook_id, owner=caller.owner))
            AuditRepository(connection).record(Action.WEBHOOK_SECRET_SHOWN, caller.owner, caller.key_id, webhook_id)
        return self._secrets.of(webhook_id)

    def deliveries(self, webhook_id: str, *, owner: str) -> list[DeliveryState]:
        """List what was sent lately, and what became of it. Raises `NotFound`."""
        with self._database.read() as connection:
            repository = WebhookRepository(connection)
            _known(repository.get(webhook_id, owner=owner))
            return repository.deliveries(webhook_id, limit=_SHOWN_DELIVERIES)

    def test(self, webhook_id: str, *, caller: Caller) -> DeliveryState:
        """Send a test message, which means nothing. Raises `NotFound`, or `QuotaExceeded` where many messages wait."""
        with self._database.write() as connection:
            repository = WebhookRepository(connection)
            _known(repository.get(webhook_id, owner=caller.owner))
            if repository.waiting(webhook_id) >= _MOST_WAITING:
                message = f"{_MOST_WAITING} messages wait for this receiver already; see what becomes of them first"
                raise QuotaExceeded("quota_exceeded", message)
            repository.send(webhook_id, json.dumps({"type": TEST_EVENT, "data": {"webhook": webhook_id}}))
            return repository.deliveries(webhook_id, limit=1)[0]

    def delete(self, webhook_id: str, *, caller: Caller) -> None:
        """Delete a webhook and what was still to be sent to it. Raises `NotFound`."""
        with self._database.write() as connection:
            if not WebhookRepository(connection).delete(webhook_id, owner=caller.owner):
                raise _unknown()
            AuditRepository(connection).record(Action.WEBHOOK_DELETED, caller.owner, caller.key_id, webhook_id)

    def _check(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.username is not None or parts.password is not None:
            raise Refused("invalid_request", "url must hold no name and password; messages are signed instead", "/url")
        try:
            address = ipaddress.ip_address(parts.hostname or "")
        except ValueError:
            return
        if not is_allowed(address, self._settings.webhook_networks):
            message = "url must be on the public internet; the operator allows other networks with COPPICE_WEBHOOK_NETWORKS"
            raise Refused("address_not_allowed", message, "/url")


def _known(webhook: Webhook | None) -> Webhook:
    if webhook is None:
        raise _unknown()
    return webhook


def _unknown() -> NotFound:
    return NotFound("webhook_not_found", "there is no such webhook")
