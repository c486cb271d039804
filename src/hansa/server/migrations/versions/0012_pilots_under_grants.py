"""Pilots: for which VO, since when they work, and how much of what they had was used."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from hansa.kernel.database import Moment

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("pilots", sa.Column("vo", sa.Text(), nullable=True))
    op.add_column("pilots", sa.Column("started", Moment(), nullable=True))
    op.add_column("pilots", sa.Column("busy_s", sa.Float(), server_default="0", nullable=False))
    op.create_index("ix_pilots_site", "pilots", ["site", "id"], unique=False)
