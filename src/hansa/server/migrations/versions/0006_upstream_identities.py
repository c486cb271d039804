"""Identities at other issuers, organisations that an issuer rules, service accounts, grants of authority."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from hansa.kernel.database import Document, Moment

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:

    op.create_table(
        "user_identities",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("issuer", sa.Text(), nullable=False),
        sa.Column("sub", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("linked", Moment(), nullable=False),
        sa.Column("last_seen", Moment(), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_user_identities_user_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_user_identities")),
        sa.UniqueConstraint("issuer", "sub", name=op.f("uq_user_identities_issuer")),
    )
    op.create_index("ix_user_identities_user_id", "user_identities", ["user_id"], unique=False)
    op.add_column("vos", sa.Column("issuer", sa.Text(), nullable=True))
    op.add_column("vos", sa.Column("issuer_vo", sa.Text(), nullable=True))
    op.add_column("vos", sa.Column("assurance", Document(), nullable=True))
    op.add_column("vo_members", sa.Column("identity_id", sa.Text(), nullable=True))
    op.add_column("vo_members", sa.Column("checked", Moment(), nullable=True))
    op.add_column("oidc_clients", sa.Column("service_user", sa.Text(), nullable=True))
    op.add_column("oidc_clients", sa.Column("service_vo", sa.Text(), nullable=True))
    op.add_column("oidc_clients", sa.Column("scopes", Document(), nullable=True))
    op.create_table(
        "authority_grants",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=True),
        sa.Column("identity_id", sa.Text(), nullable=True),
        sa.Column("issuer", sa.Text(), nullable=True),
        sa.Column("vo", sa.Text(), nullable=True),
        sa.Column("site", sa.Text(), nullable=True),
        sa.Column("sealed", sa.Text(), nullable=True),
        sa.Column("access", sa.Text(), nullable=True),
        sa.Column("access_expires", Moment(), nullable=True),
        sa.Column("created", Moment(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("refreshed", Moment(), nullable=True),
        sa.Column("expires", Moment(), nullable=True),
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
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_authority_grants_user_id")),
        sa.ForeignKeyConstraint(["vo"], ["vos.name"], name=op.f("fk_authority_grants_vo")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_authority_grants")),
    )
    op.create_index("ix_authority_grants_user_id", "authority_grants", ["user_id"], unique=False)
    op.create_index("ix_authority_grants_due_at", "authority_grants", ["due_at"], unique=False)
    op.create_index("ix_authority_grants_vo", "authority_grants", ["vo", "site"], unique=False)


def downgrade() -> None:
    raise NotImplementedError("restore the backup instead")
