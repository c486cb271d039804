"""Volumes, and snapshots of machines."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from hansa.kernel.database import Document, Moment

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "machine_snapshots",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("machine_id", sa.Text(), nullable=False),
        sa.Column("machine", sa.Text(), nullable=False),
        sa.Column("owner_id", sa.Text(), nullable=False),
        sa.Column("vo", sa.Text(), nullable=True),
        sa.Column("place", sa.Text(), nullable=False),
        sa.Column("image", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("image_version_id", sa.Text(), nullable=False),
        sa.Column("provider_id", sa.Text(), nullable=True),
        sa.Column("is_there", sa.Boolean(), nullable=False),
        sa.Column("phase", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("waiting_on", sa.Text(), nullable=False),
        sa.Column("since", Moment(), nullable=False),
        sa.Column("created", Moment(), nullable=False),
        sa.Column("ended", Moment(), nullable=True),
        sa.Column("generation", sa.BigInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("observed_generation", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("due_at", Moment(), nullable=True),
        sa.Column("lease_token", sa.Text(), nullable=True),
        sa.Column("lease_until", Moment(), nullable=True),
        sa.Column("attempt", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("intent", Document(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_machine_snapshots")),
    )
    with op.batch_alter_table("machine_snapshots", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_machine_snapshots_due_at"), ["due_at"], unique=False)
        batch_op.create_index(batch_op.f("ix_machine_snapshots_ended"), ["ended"], unique=False)
        batch_op.create_index(batch_op.f("ix_machine_snapshots_owner_id"), ["owner_id"], unique=False)

    op.create_table(
        "volumes",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("owner_id", sa.Text(), nullable=False),
        sa.Column("owner_name", sa.Text(), nullable=False),
        sa.Column("vo", sa.Text(), nullable=True),
        sa.Column("vo_group", sa.Text(), nullable=True),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("size_gib", sa.Integer(), nullable=False),
        sa.Column("place", sa.Text(), nullable=True),
        sa.Column("machine_id", sa.Text(), nullable=True),
        sa.Column("path", sa.Text(), nullable=True),
        sa.Column("wanted", sa.Boolean(), nullable=False),
        sa.Column("seen", Document(), nullable=False),
        sa.Column("refused", sa.Text(), nullable=True),
        sa.Column("phase", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("waiting_on", sa.Text(), nullable=False),
        sa.Column("since", Moment(), nullable=False),
        sa.Column("created", Moment(), nullable=False),
        sa.Column("missing_since", Moment(), nullable=True),
        sa.Column("ended", Moment(), nullable=True),
        sa.Column("version", sa.BigInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("generation", sa.BigInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("observed_generation", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("due_at", Moment(), nullable=True),
        sa.Column("lease_token", sa.Text(), nullable=True),
        sa.Column("lease_until", Moment(), nullable=True),
        sa.Column("attempt", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("intent", Document(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_volumes")),
    )
    with op.batch_alter_table("volumes", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_volumes_due_at"), ["due_at"], unique=False)
        batch_op.create_index(batch_op.f("ix_volumes_ended"), ["ended"], unique=False)
        batch_op.create_index(batch_op.f("ix_volumes_machine_id"), ["machine_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_volumes_place"), ["place"], unique=False)
        batch_op.create_index(batch_op.f("ix_volumes_vo"), ["vo"], unique=False)
        batch_op.create_index(
            "uq_volumes_name",
            ["owner_id", "name"],
            unique=True,
            sqlite_where=sa.text("phase <> 'deleted'"),
            postgresql_where=sa.text("phase <> 'deleted'"),
        )

    with op.batch_alter_table("vm_image_versions", schema=None) as batch_op:
        batch_op.add_column(sa.Column("place", sa.Text(), nullable=True))
        batch_op.add_column(sa.Column("provider_id", sa.Text(), nullable=True))


def downgrade() -> None:
    raise NotImplementedError("restore the backup instead")
