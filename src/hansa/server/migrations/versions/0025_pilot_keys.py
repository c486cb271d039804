"""The key that a pilot's token is bound to."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from hansa.kernel.database import Moment

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("tokens", schema=None) as batch_op:
        batch_op.add_column(sa.Column("key_hash", sa.Text(), nullable=True))
        batch_op.add_column(sa.Column("misused", Moment(), nullable=True))


def downgrade() -> None:
    raise NotImplementedError("restore the backup instead")
