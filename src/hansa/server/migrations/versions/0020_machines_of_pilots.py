"""Machines of pilots."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("machines", schema=None) as batch_op:
        batch_op.add_column(sa.Column("pilot_id", sa.Text(), nullable=True))
        batch_op.add_column(sa.Column("let_go", sa.Boolean(), server_default=sa.false(), nullable=False))
        batch_op.create_index(batch_op.f("ix_machines_pilot_id"), ["pilot_id"], unique=False)
    with op.batch_alter_table("pilots", schema=None) as batch_op:
        batch_op.add_column(sa.Column("enrolled_by", sa.Text(), nullable=True))


def downgrade() -> None:
    raise NotImplementedError("restore the backup instead")
