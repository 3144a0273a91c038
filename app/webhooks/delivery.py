"""Delivery of the outbox by the Standard Webhooks specification: signed, at least once, retried for a day."""

from __future__ import annotations

import contextlib
import json
import queue
import random
import ssl
import threading
from datetime import UTC, datetime
from urllib.parse import urlsplit

import httpcore2
import structlog
from sqlalchemy.exc import SQLAlchemyError
from standardwebhooks import Webhook as Signer

from app.db import Database
from app.logs import first_line
from app.settings import Settings
from app.webhooks.guard import AddressRefused, GuardedBackend
from app.webhooks.records import Delivery
from app.webhooks.repository import WebhookRepository
from app.webhooks.service import WebhookSecrets

_log = structlog.get_logger(__name__)

_MINUTE_S, _HOUR_S = 60, 3600
# Pauses before the attempts after the first: twelve attempts in all, in just under a day.
DELAYS_S = (5, 30, 2 * _MINUTE_S, 10 * _MINUTE_S, 30 * _MINUTE_S, _HOUR_S, *(2 * _HOUR_S,) * 2, *(6 * _HOUR_S,) * 3)
_JITTER = 0.1

_TIMEOUT_S = 10
_LIFETIME_S = 15
_STOP_S = 2
_AT_ONCE = 8
_LEASE_S = 120  # longer than a batch can take
_KEEP_S = 7 * 24 * _HOUR_S
_FORGET_EVERY_TICKS = 1000

_GONE = 410


class Deliverer:
    """Delivers in a thread of the API's process. Several processes may do so at once: each claims what it sends.

    Args:
        settings: Allowed networks, and interval between looks.
        database: The database with the outbox.
        secrets: Secrets that messages are signed with.
        lifetime_s: Seconds that one receiver may take in all.
    """

    def __init__(
        self, settings: Settings, database: Database, secrets: WebhookSecrets, *, lifetime_s: float = _LIFETIME_S
    ) -> None:
        self._lifetime_s = lifetime_s
        self._database = database
        self._secrets = secrets
        self._poll_s = settings.webhook_poll_s
        self._backend = GuardedBackend(settings.webhook_networks, lifetime_s)
        self._tls = ssl.create_default_context()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="webhooks", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, once what is being sent has been sent, unless a receiver takes long: it is sent the message again by another."""
        self._stop.set()
        self._thread.join(min(self._lifetime_s, _STOP_S))

    def deliver_due(self) -> int:
        """Send what is due. Return how many messages that was."""
        with self._database.read() as connection:
            if not WebhookRepository(connection).anything_due():
                return 0
        with self._database.write() as connection:
            batch = WebhookRepository(connection).claim(lease_s=_LEASE_S)
        waiting: queue.SimpleQueue[Delivery] = queue.SimpleQueue()
        for delivery in batch:
            waiting.put(delivery)
        # Not a pool: Python waits for the threads of pools before it exits, for as long as a receiver likes.
        threads = [threading.Thread(target=self._drain, args=(waiting,), daemon=True) for _ in batch[:_AT_ONCE]]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return len(batch)

    def _drain(self, waiting: queue.SimpleQueue[Delivery]) -> None:
        with contextlib.suppress(queue.Empty):
            while not self._stop.is_set():
                delivery = waiting.get_nowait()
                try:
                    self._deliver(delivery)
                except SQLAlchemyError as error:  # the message is due again after its lease
                    _tell_of(error)

    def _deliver(self, delivery: Delivery) -> None:
        status, outcome = self._send(delivery)
        with self._database.write() as connection:
            repository = WebhookRepository(connection)
            if status is not None and 200 <= status < 300:
                repository.delivered(delivery.id, outcome)
            elif status == _GONE:
                # Lock the webhook's row before the message's, as everywhere: else two messages could deadlock.
                repository.disable(delivery.webhook_id, "gone")
                repository.failed(delivery.id, outcome, again_in_s=None)
            else:
                repository.failed(delivery.id, outcome, again_in_s=_pause(delivery.attempts))
        _log.info("webhook.sent", webhook_id=delivery.webhook_id, message_id=delivery.id, outcome=outcome)

    def _send(self, delivery: Delivery) -> tuple[int | None, str]:
        """Send once. Return the status, if there was an answer, and the outcome to write down."""
        body, headers = self._message(delivery)
        timeouts = {"connect": _TIMEOUT_S, "read": _TIMEOUT_S, "write": _TIMEOUT_S, "pool": _TIMEOUT_S}
        try:
            with (
                httpcore2.ConnectionPool(self._tls, network_backend=self._backend, max_keepalive_connections=0) as pool,
                pool.stream("POST", delivery.url, headers=headers, content=body, extensions={"timeout": timeouts}) as response,
            ):
                # The body is not read: it is of no use here, and may be endless.
                return response.status, f"answered {response.status}"
        except AddressRefused:
            return None, "the address is not allowed"
        except Exception as error:  # whatever a stranger's server answers, the thread must go on
            return None, f"failed: {type(error).__name__}"

    def _message(self, delivery: Delivery) -> tuple[bytes, list[tuple[str, str]]]:
        moment = datetime.now(UTC)
        happened = datetime.fromtimestamp(delivery.created_at, UTC).isoformat().replace("+00:00", "Z")
        content = json.loads(delivery.payload)
        body = json.dumps({"type": content["type"], "timestamp": happened, "data": content["data"]}, separators=(",", ":"))
        signatures = [Signer(key).sign(delivery.id, moment, body) for key in self._secrets.all_of(delivery.webhook_id)]
        return body.encode(), [
            ("Host", urlsplit(delivery.url).netloc),
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(body.encode()))),
            ("User-Agent", "Coppice-Webhooks/1"),
            ("webhook-id", delivery.id),
            ("webhook-timestamp", str(int(moment.timestamp()))),
            ("webhook-signature", " ".join(signatures)),
        ]

    def _run(self) -> None:
        ticks = 0
        while not self._stop.wait(self._poll_s):
            try:
                while self.deliver_due() and not self._stop.is_set():
                    pass
                if ticks % _FORGET_EVERY_TICKS == 0:
                    with self._database.write() as connection:
                        WebhookRepository(connection).forget(older_than_s=_KEEP_S)
                ticks += 1
            except SQLAlchemyError as error:
                _tell_of(error)
            except Exception:
                _log.exception("webhooks.failed")


def _tell_of(error: SQLAlchemyError) -> None:
    _log.warning("webhooks.database_unavailable", error=type(error).__name__, reason=first_line(error))


def _pause(attempts: int) -> float | None:
    """Return the pause before the next attempt, a little random to spread the load; None after the last attempt."""
    if attempts >= len(DELAYS_S):
        return None
    return DELAYS_S[attempts] * (1 + random.uniform(-_JITTER, _JITTER))  # noqa: S311 - no secret hangs on it
