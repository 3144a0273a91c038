"""When the progress was written, so that an estimate of the end stands still between two writes

Revision: 0011
Before it: 0010
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("progress_at", sa.Double(), nullable=True))


def downgrade() -> None:
    op.drop_column("jobs", "progress_at")
