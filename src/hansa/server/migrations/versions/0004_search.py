"""An index in which jobs are searched without reading them."""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    columns = ["owner_id", "number", "phase", "created", "ended", "count", "exit_code", "vo"]
    op.create_index("ix_jobs_search", "jobs", columns)
