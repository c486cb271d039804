"""Machines."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from hansa.kernel.database import Document, Moment

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "machines",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("owner_id", sa.Text(), nullable=False),
        sa.Column("owner_name", sa.Text(), nullable=False),
        sa.Column("vo", sa.Text(), nullable=True),
        sa.Column("vo_group", sa.Text(), nullable=True),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("spec", Document(), nullable=False),
        sa.Column("image_version_id", sa.Text(), nullable=True),
        sa.Column("image", Document(), nullable=False),
        sa.Column("course", Document(), nullable=False),
        sa.Column("sizes", Document(), nullable=False),
        sa.Column("place", sa.Text(), nullable=True),
        sa.Column("resize_to", Document(), nullable=True),
        sa.Column("wanted", sa.Text(), nullable=False),
        sa.Column("reboots", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("hard", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("ports_open", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("seen", Document(), nullable=False),
        sa.Column("phase", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("waiting_on", sa.Text(), nullable=False),
        sa.Column("since", Moment(), nullable=False),
        sa.Column("created", Moment(), nullable=False),
        sa.Column("running_since", Moment(), nullable=True),
        sa.Column("charged_until", Moment(), nullable=True),
        sa.Column("missing_since", Moment(), nullable=True),
        sa.Column("expires", Moment(), nullable=True),
        sa.Column("warned", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("ended", Moment(), nullable=True),
        sa.Column("version", sa.BigInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("generation", sa.BigInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("observed_generation", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("due_at", Moment(), nullable=True),
        sa.Column("lease_token", sa.Text(), nullable=True),
        sa.Column("lease_until", Moment(), nullable=True),
        sa.Column("attempt", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("intent", Document(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_machines")),
    )
    with op.batch_alter_table("machines", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_machines_due_at"), ["due_at"], unique=False)
        batch_op.create_index(batch_op.f("ix_machines_ended"), ["ended"], unique=False)
        batch_op.create_index(batch_op.f("ix_machines_image_version_id"), ["image_version_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_machines_place"), ["place"], unique=False)
        batch_op.create_index(batch_op.f("ix_machines_vo"), ["vo"], unique=False)
        batch_op.create_index(
            "uq_machines_name",
            ["owner_id", "name"],
            unique=True,
            sqlite_where=sa.text("phase <> 'deleted'"),
            postgresql_where=sa.text("phase <> 'deleted'"),
        )


def downgrade() -> None:
    raise NotImplementedError("restore the backup instead")
