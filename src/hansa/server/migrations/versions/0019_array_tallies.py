"""Results of large arrays, counted by stretch."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "array_tallies",
        sa.Column("job", sa.BigInteger(), nullable=False),
        sa.Column("block", sa.BigInteger(), nullable=False),
        sa.Column("done", sa.Integer(), nullable=False),
        sa.Column("failed", sa.Integer(), nullable=False),
        sa.Column("killed", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("job", "block", name=op.f("pk_array_tallies")),
        sqlite_with_rowid=False,
    )
    sums = ", ".join(f"SUM(CASE WHEN r.phase = '{phase}' THEN 1 ELSE 0 END)" for phase in ("done", "failed", "killed"))
    op.execute(
        'INSERT INTO array_tallies (job, block, done, failed, killed) SELECT r.job, r."index" / 128, '  # noqa: S608
        f"{sums} FROM results r JOIN jobs j ON j.number = r.job WHERE j.count > 50000 "
        'GROUP BY r.job, r."index" / 128'
    )


def downgrade() -> None:
    op.drop_table("array_tallies")
