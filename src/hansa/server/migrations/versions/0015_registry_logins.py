"""Logins at container registries."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from hansa.kernel.database import Moment

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "registry_logins",
        sa.Column("owner_id", sa.Text(), nullable=False),
        sa.Column("registry", sa.Text(), nullable=False),
        sa.Column("username", sa.Text(), nullable=False),
        sa.Column("sealed", sa.Text(), nullable=False),
        sa.Column("since", Moment(), nullable=False),
        sa.PrimaryKeyConstraint("owner_id", "registry", name=op.f("pk_registry_logins")),
    )


def downgrade() -> None:
    raise NotImplementedError("restore the backup instead")
