"""Shells and forwards beside running tasks."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from hansa.kernel.database import Document, Moment

revision = "0011"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "channels",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("owner_id", sa.Text(), nullable=False),
        sa.Column("job", sa.BigInteger(), nullable=False),
        sa.Column("index", sa.BigInteger(), nullable=False),
        sa.Column("lease", sa.BigInteger(), nullable=False),
        sa.Column("pilot_id", sa.Text(), nullable=False),
        sa.Column("order", Document(), nullable=False),
        sa.Column("is_open", sa.Boolean(), nullable=False),
        sa.Column("closed", sa.Text(), nullable=True),
        sa.Column("created", Moment(), nullable=False),
        sa.Column("user_seen", Moment(), nullable=False),
        sa.Column("pilot_seen", Moment(), nullable=False),
        sa.Column("from_user", sa.BigInteger(), nullable=False),
        sa.Column("from_pilot", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_channels")),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_channels_owner_id", "channels", ["owner_id"], unique=False)
    op.create_index("ix_channels_pilot_id", "channels", ["pilot_id"], unique=False)
    op.create_table(
        "channel_pieces",
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("piece", sa.BigInteger(), nullable=False),
        sa.Column("frames", Document(), nullable=False),
        sa.PrimaryKeyConstraint("channel", "origin", "piece", name=op.f("pk_channel_pieces")),
        sqlite_with_rowid=False,
    )
    op.add_column("pilots", sa.Column("called", sa.Boolean(), server_default=sa.false(), nullable=False))
