"""Accounts, virtual organisations, and Hansa as OpenID provider."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from hansa.kernel.database import Document, Moment

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:

    op.create_table(
        "login_failures",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("last", Moment(), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_login_failures")),
    )
    op.create_index("ix_login_failures_last", "login_failures", ["last"], unique=False)

    op.create_table(
        "oidc_clients",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("secret_hash", sa.Text(), nullable=True),
        sa.Column("redirect_uris", Document(), nullable=False),
        sa.Column("logout_uris", Document(), nullable=False),
        sa.Column("audiences", Document(), nullable=False),
        sa.Column("api", sa.Boolean(), nullable=False),
        sa.Column("trusted", sa.Boolean(), nullable=False),
        sa.Column("introspects", sa.Boolean(), nullable=False),
        sa.Column("created", Moment(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_oidc_clients")),
    )
    op.create_table(
        "oidc_revoked_tokens",
        sa.Column("jti", sa.Text(), nullable=False),
        sa.Column("expires", Moment(), nullable=False),
        sa.PrimaryKeyConstraint("jti", name=op.f("pk_oidc_revoked_tokens")),
    )
    op.create_index("ix_oidc_revoked_tokens_expires", "oidc_revoked_tokens", ["expires"], unique=False)

    op.create_table(
        "signing_keys",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("public", Document(), nullable=False),
        sa.Column("private", sa.Text(), nullable=False),
        sa.Column("created", Moment(), nullable=False),
        sa.Column("retired", Moment(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_signing_keys")),
    )
    op.create_table(
        "vos",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("created", Moment(), nullable=False),
        sa.Column("suspended", Moment(), nullable=True),
        sa.Column("suspended_why", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_vos")),
    )
    op.create_table(
        "invitations",
        sa.Column("hash", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=True),
        sa.Column("vo", sa.Text(), nullable=True),
        sa.Column("roles", Document(), nullable=False),
        sa.Column("groups", Document(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("created", Moment(), nullable=False),
        sa.Column("expires", Moment(), nullable=False),
        sa.Column("used", Moment(), nullable=True),
        sa.Column("used_by", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_invitations_user_id")),
        sa.ForeignKeyConstraint(["vo"], ["vos.name"], name=op.f("fk_invitations_vo")),
        sa.PrimaryKeyConstraint("hash", name=op.f("pk_invitations")),
    )
    op.create_index("ix_invitations_vo", "invitations", ["vo"], unique=False)

    op.create_table(
        "oidc_codes",
        sa.Column("hash", sa.Text(), nullable=False),
        sa.Column("client_id", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("redirect_uri", sa.Text(), nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("nonce", sa.Text(), nullable=True),
        sa.Column("code_challenge", sa.Text(), nullable=True),
        sa.Column("code_challenge_method", sa.Text(), nullable=True),
        sa.Column("auth_time", Moment(), nullable=False),
        sa.Column("session", sa.Text(), nullable=True),
        sa.Column("expires", Moment(), nullable=False),
        sa.Column("grant_id", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_oidc_codes_user_id")),
        sa.PrimaryKeyConstraint("hash", name=op.f("pk_oidc_codes")),
    )
    op.create_index("ix_oidc_codes_expires", "oidc_codes", ["expires"], unique=False)

    op.create_table(
        "oidc_consents",
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("client_id", sa.Text(), nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("given", Moment(), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_oidc_consents_user_id")),
        sa.PrimaryKeyConstraint("user_id", "client_id", name=op.f("pk_oidc_consents")),
    )
    op.create_table(
        "oidc_devices",
        sa.Column("hash", sa.Text(), nullable=False),
        sa.Column("user_code", sa.Text(), nullable=False),
        sa.Column("client_id", sa.Text(), nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("expires", Moment(), nullable=False),
        sa.Column("interval_s", sa.Integer(), nullable=False),
        sa.Column("last_poll", Moment(), nullable=True),
        sa.Column("user_id", sa.Text(), nullable=True),
        sa.Column("approved", sa.Boolean(), nullable=True),
        sa.Column("auth_time", Moment(), nullable=True),
        sa.Column("used", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_oidc_devices_user_id")),
        sa.PrimaryKeyConstraint("hash", name=op.f("pk_oidc_devices")),
        sa.UniqueConstraint("user_code", name=op.f("uq_oidc_devices_user_code")),
    )
    op.create_index("ix_oidc_devices_expires", "oidc_devices", ["expires"], unique=False)

    op.create_table(
        "oidc_grants",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("client_id", sa.Text(), nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("auth_time", Moment(), nullable=False),
        sa.Column("created", Moment(), nullable=False),
        sa.Column("expires", Moment(), nullable=False),
        sa.Column("session", sa.Text(), nullable=True),
        sa.Column("revoked", Moment(), nullable=True),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_oidc_grants_user_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_oidc_grants")),
    )
    op.create_index("ix_oidc_grants_expires", "oidc_grants", ["expires"], unique=False)
    op.create_index("ix_oidc_grants_session", "oidc_grants", ["session"], unique=False)
    op.create_index("ix_oidc_grants_user_id", "oidc_grants", ["user_id"], unique=False)

    op.create_table(
        "oidc_sessions",
        sa.Column("hash", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("auth_time", Moment(), nullable=False),
        sa.Column("expires", Moment(), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_oidc_sessions_user_id")),
        sa.PrimaryKeyConstraint("hash", name=op.f("pk_oidc_sessions")),
    )
    op.create_index("ix_oidc_sessions_expires", "oidc_sessions", ["expires"], unique=False)
    op.create_index("ix_oidc_sessions_user_id", "oidc_sessions", ["user_id"], unique=False)

    op.create_table(
        "passwords",
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.Column("changed", Moment(), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_passwords_user_id")),
        sa.PrimaryKeyConstraint("user_id", name=op.f("pk_passwords")),
    )
    op.create_table(
        "vo_groups",
        sa.Column("vo", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created", Moment(), nullable=False),
        sa.ForeignKeyConstraint(["vo"], ["vos.name"], name=op.f("fk_vo_groups_vo")),
        sa.PrimaryKeyConstraint("vo", "name", name=op.f("pk_vo_groups")),
    )
    op.create_table(
        "vo_members",
        sa.Column("vo", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("roles", Document(), nullable=False),
        sa.Column("groups", Document(), nullable=False),
        sa.Column("since", Moment(), nullable=False),
        sa.Column("suspended", Moment(), nullable=True),
        sa.Column("suspended_why", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_vo_members_user_id")),
        sa.ForeignKeyConstraint(["vo"], ["vos.name"], name=op.f("fk_vo_members_vo")),
        sa.PrimaryKeyConstraint("vo", "user_id", name=op.f("pk_vo_members")),
    )
    op.create_index("ix_vo_members_user_id", "vo_members", ["user_id"], unique=False)

    op.create_table(
        "oidc_refresh_tokens",
        sa.Column("hash", sa.Text(), nullable=False),
        sa.Column("grant_id", sa.Text(), nullable=False),
        sa.Column("expires", Moment(), nullable=False),
        sa.Column("used", Moment(), nullable=True),
        sa.ForeignKeyConstraint(["grant_id"], ["oidc_grants.id"], name=op.f("fk_oidc_refresh_tokens_grant_id")),
        sa.PrimaryKeyConstraint("hash", name=op.f("pk_oidc_refresh_tokens")),
    )
    op.create_index("ix_oidc_refresh_tokens_expires", "oidc_refresh_tokens", ["expires"], unique=False)
    op.create_index("ix_oidc_refresh_tokens_grant_id", "oidc_refresh_tokens", ["grant_id"], unique=False)


def downgrade() -> None:
    raise NotImplementedError("restore the backup instead")
