"""Until when a site lets a machine live."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from hansa.kernel.database import Moment

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("machines", schema=None) as batch_op:
        batch_op.add_column(sa.Column("site_ends", Moment(), nullable=True))


def downgrade() -> None:
    raise NotImplementedError("restore the backup instead")
