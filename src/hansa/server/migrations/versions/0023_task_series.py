"""What tasks use over their time."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from hansa.kernel.database import Document, Moment

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "task_series",
        sa.Column("job", sa.BigInteger(), nullable=False),
        sa.Column("index", sa.BigInteger(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("series", Document(), nullable=False),
        sa.Column("seen", Moment(), nullable=False),
        sa.PrimaryKeyConstraint("job", "index", "attempt", name=op.f("pk_task_series")),
    )
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.add_column(sa.Column("series_kept", sa.Integer(), server_default="0", nullable=False))


def downgrade() -> None:
    raise NotImplementedError("restore the backup instead")
