"""VM images at sites."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from hansa.kernel.database import Document, Moment

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "vm_image_places",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("version_id", sa.Text(), nullable=False),
        sa.Column("place", sa.Text(), nullable=False),
        sa.Column("vo", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("checksum", sa.Text(), nullable=True),
        sa.Column("wanted", sa.Boolean(), nullable=False),
        sa.Column("provider_id", sa.Text(), nullable=True),
        sa.Column("checked", Moment(), nullable=True),
        sa.Column("phase", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("waiting_on", sa.Text(), nullable=False),
        sa.Column("since", Moment(), nullable=False),
        sa.Column("generation", sa.BigInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("observed_generation", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("due_at", Moment(), nullable=True),
        sa.Column("lease_token", sa.Text(), nullable=True),
        sa.Column("lease_until", Moment(), nullable=True),
        sa.Column("attempt", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("intent", Document(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_vm_image_places")),
        sa.UniqueConstraint("version_id", "place", "vo", name="uq_vm_image_places_what"),
    )
    with op.batch_alter_table("vm_image_places", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_vm_image_places_due_at"), ["due_at"], unique=False)
        batch_op.create_index(batch_op.f("ix_vm_image_places_vo"), ["vo"], unique=False)


def downgrade() -> None:
    raise NotImplementedError("restore the backup instead")
