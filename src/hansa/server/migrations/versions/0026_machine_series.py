"""What machines use over their time."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from hansa.kernel.database import Document, Moment

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "machine_series",
        sa.Column("machine", sa.Text(), nullable=False),
        sa.Column("samples", Document(), nullable=False),
        sa.Column("seen", Moment(), nullable=False),
        sa.PrimaryKeyConstraint("machine", name=op.f("pk_machine_series")),
    )
    with op.batch_alter_table("machine_series", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_machine_series_seen"), ["seen"], unique=False)


def downgrade() -> None:
    raise NotImplementedError("restore the backup instead")
