"""What operators are shown of tenants."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

from pydantic import BaseModel, Field

from app.operations.tenants import DeletionState


class TenantDeletionView(BaseModel):
    """The deletion of a tenant."""

    object: Literal["tenant.deletion"] = "tenant.deletion"
    tenant: str
    requested_at: datetime
    finished_at: datetime | None = Field(description="Null: it goes on; ask again, or leave it to the workers.")
    running: int = Field(description="Jobs that still have a worker; they are being cancelled.")
    deleted: dict[str, int] = Field(description="What was deleted so far, by kind.")

    @classmethod
    def of(cls, state: DeletionState) -> TenantDeletionView:
        """Show how far a deletion is."""
        deletion = state.deletion
        return cls(
            tenant=deletion.owner,
            requested_at=datetime.fromtimestamp(deletion.requested_at, UTC),
            finished_at=None if deletion.finished_at is None else datetime.fromtimestamp(deletion.finished_at, UTC),
            running=state.running,
            deleted=dict(deletion.counts),
        )
