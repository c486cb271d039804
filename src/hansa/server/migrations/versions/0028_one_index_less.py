"""Jobs by owner and number are found by the longer indexes that begin so, too."""

from __future__ import annotations

from alembic import op

revision = "0028"
down_revision = "0027"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.drop_index("ix_jobs_owner")


def downgrade() -> None:
    raise NotImplementedError("restore the backup instead")
