"""Capacity grants; usage records by group and kind, with GPUs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from hansa.kernel.database import Document, Moment

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _create_grants()
    _widen_usage()


def _create_grants() -> None:
    op.create_table(
        "capacity_grants",
        sa.Column("vo", sa.Text(), nullable=False),
        sa.Column("site", sa.Text(), nullable=False),
        sa.Column("phase", sa.Text(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("since", Moment(), nullable=False),
        sa.Column("terms", Document(), nullable=False),
        sa.Column("asked", Document(), nullable=True),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("caps", Document(), nullable=False),
        sa.Column("used_ms", sa.BigInteger(), nullable=False),
        sa.Column("idle_ms", sa.BigInteger(), nullable=False),
        sa.Column("warned", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("vo", "site", name=op.f("pk_capacity_grants")),
    )
    op.create_index("ix_capacity_grants_site", "capacity_grants", ["site"], unique=False)
    op.create_table(
        "capacity_uses",
        sa.Column("vo", sa.Text(), nullable=False),
        sa.Column("site", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("vo_group", sa.Text(), nullable=False),
        sa.Column("used_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("vo", "site", "user_id", "vo_group", name=op.f("pk_capacity_uses")),
    )
    op.create_table(
        "capacity_reservations",
        sa.Column("thing", sa.Text(), nullable=False),
        sa.Column("vo", sa.Text(), nullable=False),
        sa.Column("vo_group", sa.Text(), nullable=False),
        sa.Column("site", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("core_ms", sa.BigInteger(), nullable=False),
        sa.Column("cores", sa.Integer(), nullable=False),
        sa.Column("memory_mib", sa.BigInteger(), nullable=False),
        sa.Column("gpus", sa.Integer(), nullable=False),
        sa.Column("storage_gib", sa.BigInteger(), nullable=False),
        sa.Column("since", Moment(), nullable=False),
        sa.Column("expires", Moment(), nullable=False),
        sa.PrimaryKeyConstraint("thing", "vo", "vo_group", name=op.f("pk_capacity_reservations")),
    )
    op.create_index("ix_capacity_reservations_expires", "capacity_reservations", ["expires"], unique=False)
    op.create_index("ix_capacity_reservations_grant", "capacity_reservations", ["vo", "site"], unique=False)


def _widen_usage() -> None:
    """The key of usage records grows, which SQLite can do only with a new table."""
    op.execute("CREATE TABLE usage_before AS SELECT * FROM usage")
    op.drop_table("usage")
    op.create_table(
        "usage",
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("owner_id", sa.Text(), nullable=False),
        sa.Column("vo", sa.Text(), nullable=False),
        sa.Column("vo_group", sa.Text(), nullable=False),
        sa.Column("site", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("tasks", sa.BigInteger(), nullable=False),
        sa.Column("wall_s", sa.Float(), nullable=False),
        sa.Column("core_s", sa.Float(), nullable=False),
        sa.Column("cpu_s", sa.Float(), nullable=False),
        sa.Column("gpu_s", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("day", "owner_id", "vo", "vo_group", "site", "kind", name=op.f("pk_usage")),
    )
    op.execute(
        "INSERT INTO usage (day, owner_id, vo, vo_group, site, kind, tasks, wall_s, core_s, cpu_s, gpu_s) "
        "SELECT day, owner_id, vo, '', site, 'job', tasks, wall_s, core_s, cpu_s, 0 FROM usage_before"
    )
    op.drop_table("usage_before")
