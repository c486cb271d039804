"""Canaries: the smallest jobs, sent to see whether jobs start."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from hansa.kernel.database import Document, Moment

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "canaries",
        sa.Column("endpoint_id", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("site", sa.Text(), nullable=False),
        sa.Column("sent", Moment(), nullable=False),
        sa.Column("ended", Moment(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("waited_s", sa.Float(), nullable=True),
        sa.Column("message", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["endpoint_id"], ["endpoints.id"], name=op.f("fk_canaries_endpoint_id")),
        sa.PrimaryKeyConstraint("endpoint_id", "number", name=op.f("pk_canaries")),
    )
    with op.batch_alter_table("canaries", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_canaries_ended"), ["ended"], unique=False)
        batch_op.create_index("ix_canaries_site_sent", ["site", "sent"], unique=False)
    with op.batch_alter_table("endpoints", schema=None) as batch_op:
        batch_op.add_column(sa.Column("canary", Document(), server_default="{}", nullable=False))


def downgrade() -> None:
    raise NotImplementedError("restore the backup instead")
