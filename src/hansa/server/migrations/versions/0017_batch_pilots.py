"""Pilots at batch systems: endpoint, size, labels, number and script; how queues stand."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from hansa.kernel.database import Document

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for column in (
        sa.Column("endpoint_id", sa.Text(), nullable=True),
        sa.Column("nodes", sa.Integer(), server_default="1", nullable=False),
        sa.Column("is_whole", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("wall_time_s", sa.Float(), nullable=True),
        sa.Column("job", sa.BigInteger(), nullable=True),
        sa.Column("labels", Document(), nullable=True),
        sa.Column("batch", Document(), server_default="[]", nullable=False),
        sa.Column("batch_id", sa.Text(), nullable=True),
        sa.Column("script", sa.Text(), nullable=True),
    ):
        op.add_column("pilots", column)
    op.add_column("queues", sa.Column("standing", Document(), nullable=True))


def downgrade() -> None:
    raise NotImplementedError("restore the backup instead")
