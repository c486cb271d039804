"""Image lists for everybody, and the key that signs them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "vm_list_signer",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("private", sa.Text(), nullable=False),
        sa.Column("certificate", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_vm_list_signer")),
    )
    with op.batch_alter_table("vo_image_policies", schema=None) as batch_op:
        batch_op.add_column(sa.Column("is_listed", sa.Boolean(), server_default=sa.false(), nullable=False))


def downgrade() -> None:
    raise NotImplementedError("restore the backup instead")
