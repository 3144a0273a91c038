"""SQL of webhooks and of their outbox."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import uuid4

import sqlalchemy as sa

from app.db import now
from app.webhooks.models import webhook_deliveries as _deliveries
from app.webhooks.models import webhooks as _webhooks
from app.webhooks.records import Backlog, Delivery, DeliveryState, Webhook

_BATCH = 20
_BATCH_OF_ONE = (
    8  # of one owner: as many as are sent at once, so that the slowest keep the next batch waiting for one time limit
)


class WebhookRepository:
    """Queries within one transaction of the caller's."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def insert(self, webhook_id: str, *, owner: str, url: str, events: Sequence[str]) -> None:
        """Insert a webhook."""
        values = {"id": webhook_id, "owner": owner, "url": url, "events": list(events), "created_at": now()}
        self._connection.execute(_webhooks.insert().values(**values))

    def get(self, webhook_id: str, *, owner: str) -> Webhook | None:
        """Read one webhook of an owner."""
        query = sa.select(_webhooks).where(_webhooks.c.id == webhook_id, _webhooks.c.owner == owner)
        row = self._connection.execute(query).mappings().one_or_none()
        return None if row is None else _webhook(row)

    def list(self, *, owner: str) -> list[Webhook]:
        """List the webhooks of an owner, oldest first."""
        query = sa.select(_webhooks).where(_webhooks.c.owner == owner).order_by(_webhooks.c.created_at, _webhooks.c.id)
        return [_webhook(row) for row in self._connection.execute(query).mappings()]

    def delete(self, webhook_id: str, *, owner: str) -> bool:
        """Delete a webhook and what was still to be sent to it. False: there is none."""
        mine = sa.select(_webhooks.c.id).where(_webhooks.c.id == webhook_id, _webhooks.c.owner == owner)
        # Lock the webhook first: a message that is being enqueued now waits for this lock, or is deleted with the webhook.
        if self._connection.scalar(mine.with_for_update()) is None:
            return False
        self._connection.execute(_deliveries.delete().where(_deliveries.c.webhook_id == webhook_id))
        self._connection.execute(_webhooks.delete().where(_webhooks.c.id == webhook_id))
        return True

    def delete_of(self, owner: str) -> int:
        """Delete all webhooks of an owner and what was still to be sent to them. Return how many webhooks."""
        mine = sa.select(_webhooks.c.id).where(_webhooks.c.owner == owner).order_by(_webhooks.c.id)
        ids = list(self._connection.scalars(mine.with_for_update()))
        self._connection.execute(_deliveries.delete().where(_deliveries.c.webhook_id.in_(ids)))
        return self._connection.execute(_webhooks.delete().where(_webhooks.c.id.in_(ids))).rowcount

    def enqueue(self, owner: str, event: str, payload: str, *, job_id: str) -> None:
        """Put an event into the outbox of every webhook of an owner that wants it, in the transaction that made it true."""
        query = sa.select(_webhooks.c.id, _webhooks.c.events).where(
            _webhooks.c.owner == owner, _webhooks.c.disabled_at.is_(None)
        )
        # Lock the rows until the outbox is written: a webhook deleted meanwhile would roll back the job's end.
        wanting = [
            row.id for row in self._connection.execute(query.with_for_update(read=True, key_share=True)) if event in row.events
        ]
        for webhook_id in wanting:
            self.send(webhook_id, payload, job_id=job_id)

    def send(self, webhook_id: str, payload: str, *, job_id: str | None = None) -> str:
        """Put one message, of a job's end where one is named, into the outbox, and return its id."""
        delivery_id = f"msg_{uuid4().hex}"
        self._connection.execute(
            _deliveries.insert().values(
                id=delivery_id,
                webhook_id=webhook_id,
                job_id=job_id,
                payload=payload,
                created_at=now(),
                due_at=now(),
                attempts=0,
            )
        )
        return delivery_id

    def claim(self, *, lease_s: float) -> list[Delivery]:
        """Claim what is due, of one owner after the other: a tenant whose receivers are slow holds up its own messages.

        Without an outcome a message is due again after the lease: the process that claimed it may have died.
        """
        is_due = _deliveries.c.due_at <= self._connection.execute(sa.select(now())).scalar_one()
        place = sa.func.row_number().over(partition_by=_webhooks.c.owner, order_by=_deliveries.c.due_at)
        ranked = (
            sa.select(_deliveries.c.id, place.label("place"), _deliveries.c.due_at)
            .join(_webhooks, _webhooks.c.id == _deliveries.c.webhook_id)
            .where(is_due)
            .subquery()
        )
        mine = ranked.c.place <= _BATCH_OF_ONE
        first = sa.select(ranked.c.id).where(mine).order_by(ranked.c.place, ranked.c.due_at).limit(_BATCH)
        # Again whether they are due: another process may have claimed them since they were ranked.
        due = sa.select(_deliveries.c.id).where(_deliveries.c.id.in_(first), is_due).with_for_update(skip_locked=True)
        ids = list(self._connection.scalars(due))
        if not ids:
            return []
        self._connection.execute(_deliveries.update().where(_deliveries.c.id.in_(ids)).values(due_at=now() + lease_s))
        query = (
            sa.select(_deliveries, _webhooks.c.url)
            .join(_webhooks, _webhooks.c.id == _deliveries.c.webhook_id)
            .where(_deliveries.c.id.in_(ids), _webhooks.c.disabled_at.is_(None))
            .order_by(_deliveries.c.created_at, _deliveries.c.id)
        )
        return [
            Delivery(row.id, row.webhook_id, row.url, row.payload, row.attempts, row.created_at)
            for row in self._connection.execute(query)
        ]

    def anything_due(self) -> bool:
        """Return whether `claim` would find something: a look that takes no lock."""
        clock = self._connection.execute(sa.select(now())).scalar_one()
        return self._connection.scalar(sa.select(_deliveries.c.id).where(_deliveries.c.due_at <= clock).limit(1)) is not None

    def delivered(self, delivery_id: str, outcome: str) -> None:
        """Note a success."""
        self._settle(delivery_id, outcome, delivered_at=now(), due_at=None)

    def failed(self, delivery_id: str, outcome: str, *, again_in_s: float | None) -> None:
        """Note a failure, and when to try again; None: not at all."""
        self._settle(delivery_id, outcome, due_at=None if again_in_s is None else now() + again_in_s)

    def disable(self, webhook_id: str, why: str) -> None:
        """Send nothing to a webhook any more, not even what waits."""
        still_on = _webhooks.update().where(_webhooks.c.id == webhook_id, _webhooks.c.disabled_at.is_(None))
        self._connection.execute(still_on.values(disabled_at=now(), disabled_why=why))
        waiting = _deliveries.update().where(_deliveries.c.webhook_id == webhook_id, _deliveries.c.due_at.is_not(None))
        self._connection.execute(waiting.values(due_at=None))

    def deliveries(self, webhook_id: str, *, limit: int) -> list[DeliveryState]:
        """List the latest deliveries of a webhook, newest first."""
        query = (
            sa.select(_deliveries)
            .where(_deliveries.c.webhook_id == webhook_id)
            .order_by(_deliveries.c.created_at.desc(), _deliveries.c.id.desc())
            .limit(limit)
        )
        return [
            DeliveryState(row.id, row.created_at, row.attempts, row.delivered_at, row.due_at, row.last_outcome)
            for row in self._connection.execute(query)
        ]

    def waiting(self, webhook_id: str) -> int:
        """Count the messages that are still to be sent to a webhook."""
        mine = sa.and_(_deliveries.c.webhook_id == webhook_id, _deliveries.c.due_at.is_not(None))
        return self._connection.scalar(sa.select(sa.func.count()).where(mine)) or 0

    def backlog(self) -> Backlog:
        """Count what is still to be sent, for all tenants."""
        clock = self._connection.execute(sa.select(now())).scalar_one()
        waiting = sa.select(sa.func.count(), sa.func.min(_deliveries.c.created_at)).where(_deliveries.c.due_at.is_not(None))
        messages, oldest = self._connection.execute(waiting).one()
        disabled = sa.select(sa.func.count()).select_from(_webhooks).where(_webhooks.c.disabled_at.is_not(None))
        return Backlog(messages, max(0.0, clock - oldest) if messages else 0.0, self._connection.scalar(disabled) or 0)

    def forget_jobs(self, job_ids: Sequence[str]) -> None:
        """Delete what tells of the ends of some jobs, sent or not."""
        self._connection.execute(_deliveries.delete().where(_deliveries.c.job_id.in_(job_ids)))

    def forget(self, *, older_than_s: float) -> int:
        """Delete deliveries that are settled and old. Return how many."""
        clock = self._connection.execute(sa.select(now())).scalar_one()
        old = _deliveries.delete().where(_deliveries.c.due_at.is_(None), _deliveries.c.created_at < clock - older_than_s)
        return self._connection.execute(old).rowcount

    def _settle(self, delivery_id: str, outcome: str, **values: object) -> None:
        mine = _deliveries.update().where(_deliveries.c.id == delivery_id)
        self._connection.execute(mine.values(attempts=_deliveries.c.attempts + 1, last_outcome=outcome, **values))


def _webhook(found: sa.RowMapping) -> Webhook:
    return Webhook(
        id=found["id"],
        owner=found["owner"],
        url=found["url"],
        events=tuple(found["events"]),
        created_at=found["created_at"],
        disabled_at=found["disabled_at"],
        disabled_why=found["disabled_why"],
    )
