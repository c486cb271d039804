"""Task queues by all needs, VO and group; what jobs are found by; shares."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from hansa.kernel.database import Document, Moment

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("queues") as batch:
        batch.drop_constraint("uq_queues_key", type_="unique")
        batch.add_column(sa.Column("vo", sa.Text(), nullable=False, server_default=""))
        batch.add_column(sa.Column("vo_group", sa.Text(), nullable=False, server_default=""))
        batch.add_column(sa.Column("needs", sa.Text(), nullable=False, server_default=""))
        batch.add_column(sa.Column("digest", sa.Text(), nullable=True))
    # Queues of the earlier schema go on until their jobs have ended; new jobs get new queues.
    op.execute(sa.text("UPDATE queues SET digest = 'earlier-' || CAST(id AS TEXT)"))
    with op.batch_alter_table("queues") as batch:
        batch.alter_column("digest", existing_type=sa.Text(), nullable=False)
        batch.create_unique_constraint("uq_queues_digest", ["digest"])
    op.create_index("ix_queues_owner", "queues", ["owner_id"])
    for column in (
        sa.Column("vo_group", sa.Text()),
        sa.Column("group_name", sa.Text()),
        sa.Column("command", sa.Text(), nullable=False, server_default=""),
        sa.Column("labels", Document()),
        sa.Column("comment", sa.Text()),
        sa.Column("sites", Document()),
        sa.Column("held", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("blockers", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("wake_at", Moment()),
        sa.Column("deadline", Moment()),
    ):
        op.add_column("jobs", column)
    op.create_index("ix_jobs_phase", "jobs", ["owner_id", "phase", "number"])
    op.create_index("ix_jobs_group", "jobs", ["owner_id", "group_name", "number"])
    op.create_index("ix_jobs_text", "jobs", ["owner_id", "number", "name", "command"])
    for name, columns, where in (
        ("ix_jobs_wake", ["owner_id", "wake_at"], "wake_at IS NOT NULL"),
        ("ix_jobs_deadline", ["deadline"], "deadline IS NOT NULL"),
    ):
        op.create_index(name, "jobs", columns, sqlite_where=sa.text(where), postgresql_where=sa.text(where))
    for name in ("tags", "required_tags"):
        op.add_column("pilots", sa.Column(name, Document(), nullable=False, server_default="[]"))
    _create_tables()


def _create_tables() -> None:
    op.create_table(
        "job_marks",
        sa.Column("owner_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("job", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("owner_id", "kind", "name", "value", "job", name=op.f("pk_job_marks")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "job_links",
        sa.Column("job", sa.BigInteger(), nullable=False),
        sa.Column("needs", sa.BigInteger(), nullable=False),
        sa.Column("how", sa.Text(), nullable=False),
        sa.Column("met", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("job", "needs", name=op.f("pk_job_links")),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_job_links_needs", "job_links", ["needs"])
    op.create_table(
        "share_usage",
        sa.Column("vo", sa.Text(), nullable=False),
        sa.Column("vo_group", sa.Text(), nullable=False),
        sa.Column("owner_id", sa.Text(), nullable=False),
        sa.Column("period", sa.BigInteger(), nullable=False),
        sa.Column("amount", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("vo", "vo_group", "owner_id", name=op.f("pk_share_usage")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "share_weights",
        sa.Column("parent", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("weight", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("parent", "name", name=op.f("pk_share_weights")),
        sqlite_with_rowid=False,
    )
