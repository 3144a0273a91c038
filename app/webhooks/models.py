"""Tables of webhooks: the addresses, and the outbox of messages still to be sent."""

from __future__ import annotations

import sqlalchemy as sa

from app.db import metadata

webhooks = sa.Table(
    "webhooks",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("owner", sa.String(64), nullable=False),
    sa.Column("url", sa.String(2048), nullable=False),
    sa.Column("events", sa.JSON, nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("disabled_at", sa.Double),
    sa.Column("disabled_why", sa.String(64)),
    sa.Index(None, "owner", "created_at"),
)

# Written in the transaction that ends the job, so that an event is sent if and only if the job has ended.
webhook_deliveries = sa.Table(
    "webhook_deliveries",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),  # sent as the header `webhook-id`, the same for every attempt
    sa.Column("webhook_id", sa.String(64), sa.ForeignKey("webhooks.id", ondelete="CASCADE"), nullable=False),
    sa.Column("job_id", sa.String(64)),  # whose end it tells of; null: of no job, or written before this column was
    sa.Column("payload", sa.Text, nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("due_at", sa.Double),  # null: the message was delivered or given up
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("delivered_at", sa.Double),
    sa.Column("last_outcome", sa.String(128)),
    sa.Index(None, "due_at"),
    sa.Index(None, "webhook_id", "created_at"),
    sa.Index(None, "job_id"),
)
