"""VM images: the catalogue, endorsements, lists."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from hansa.kernel.database import Document, Moment

revision = "0007"
down_revision = "0006"

branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "vm_images",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("owner_id", sa.Text(), nullable=False),
        sa.Column("owner_name", sa.Text(), nullable=False),
        sa.Column("vo", sa.Text(), nullable=True),
        sa.Column("visibility", sa.Text(), nullable=False),
        sa.Column("about", Document(), nullable=False),
        sa.Column("created", Moment(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_vm_images")),
        sa.UniqueConstraint("scope", "name", name="uq_vm_images_name"),
    )
    op.create_table(
        "vm_image_subscriptions",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("vo", sa.Text(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("authorities", sa.Text(), nullable=True),
        sa.Column("endorser", sa.Text(), nullable=True),
        sa.Column("every_s", sa.BigInteger(), nullable=False),
        sa.Column("by", sa.Text(), nullable=False),
        sa.Column("owner_id", sa.Text(), nullable=False),
        sa.Column("identifier", sa.Text(), nullable=True),
        sa.Column("version", sa.Text(), nullable=True),
        sa.Column("images", sa.Integer(), nullable=False),
        sa.Column("expires", Moment(), nullable=True),
        sa.Column("read", Moment(), nullable=True),
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
        sa.ForeignKeyConstraint(["vo"], ["vos.name"], name=op.f("fk_vm_image_subscriptions_vo")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_vm_image_subscriptions")),
        sa.UniqueConstraint("vo", "url", name="uq_vm_image_subscriptions_url"),
    )
    with op.batch_alter_table("vm_image_subscriptions", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_vm_image_subscriptions_due_at"), ["due_at"], unique=False)
        batch_op.create_index(batch_op.f("ix_vm_image_subscriptions_vo"), ["vo"], unique=False)

    op.create_table(
        "vm_image_versions",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("image_id", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("sums", sa.Text(), nullable=True),
        sa.Column("checksum", sa.Text(), nullable=True),
        sa.Column("sha256", sa.Text(), nullable=True),
        sa.Column("declared", sa.Text(), nullable=True),
        sa.Column("format", sa.Text(), nullable=True),
        sa.Column("size_bytes", sa.BigInteger(), nullable=True),
        sa.Column("virtual_bytes", sa.BigInteger(), nullable=True),
        sa.Column("done_bytes", sa.BigInteger(), nullable=False),
        sa.Column("wanted", sa.Boolean(), nullable=False),
        sa.Column("phase", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("waiting_on", sa.Text(), nullable=False),
        sa.Column("since", Moment(), nullable=False),
        sa.Column("created", Moment(), nullable=False),
        sa.Column("expires", Moment(), nullable=True),
        sa.Column("subscription_id", sa.Text(), nullable=True),
        sa.Column("generation", sa.BigInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("observed_generation", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("due_at", Moment(), nullable=True),
        sa.Column("lease_token", sa.Text(), nullable=True),
        sa.Column("lease_until", Moment(), nullable=True),
        sa.Column("attempt", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("intent", Document(), nullable=True),
        sa.ForeignKeyConstraint(["image_id"], ["vm_images.id"], name=op.f("fk_vm_image_versions_image_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_vm_image_versions")),
        sa.UniqueConstraint("image_id", "version", name="uq_vm_image_versions_version"),
    )
    with op.batch_alter_table("vm_image_versions", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_vm_image_versions_due_at"), ["due_at"], unique=False)
        batch_op.create_index(batch_op.f("ix_vm_image_versions_sha256"), ["sha256"], unique=False)
        batch_op.create_index(batch_op.f("ix_vm_image_versions_subscription_id"), ["subscription_id"], unique=False)

    op.create_table(
        "vo_image_policies",
        sa.Column("vo", sa.Text(), nullable=False),
        sa.Column("site_images", sa.Boolean(), nullable=False),
        sa.Column("registries", Document(), nullable=True),
        sa.ForeignKeyConstraint(["vo"], ["vos.name"], name=op.f("fk_vo_image_policies_vo")),
        sa.PrimaryKeyConstraint("vo", name=op.f("pk_vo_image_policies")),
    )
    op.create_table(
        "vm_endorsements",
        sa.Column("vo", sa.Text(), nullable=False),
        sa.Column("image_id", sa.Text(), nullable=False),
        sa.Column("version_id", sa.Text(), nullable=True),
        sa.Column("by", sa.Text(), nullable=False),
        sa.Column("since", Moment(), nullable=False),
        sa.Column("until", Moment(), nullable=True),
        sa.ForeignKeyConstraint(["image_id"], ["vm_images.id"], name=op.f("fk_vm_endorsements_image_id")),
        sa.ForeignKeyConstraint(["version_id"], ["vm_image_versions.id"], name=op.f("fk_vm_endorsements_version_id")),
        sa.ForeignKeyConstraint(["vo"], ["vos.name"], name=op.f("fk_vm_endorsements_vo")),
        sa.PrimaryKeyConstraint("vo", "image_id", name=op.f("pk_vm_endorsements")),
    )
    with op.batch_alter_table("vm_endorsements", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_vm_endorsements_image_id"), ["image_id"], unique=False)


def downgrade() -> None:
    raise NotImplementedError("restore the backup instead")
