"""Content that is collected, and what is kept of jobs for how long."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from alembic import op

from hansa.kernel.database import Document, Moment

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "contents",
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("used", Moment(), nullable=False),
        sa.Column("doomed", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_contents")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "job_inputs",
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("job", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("digest", "job", name=op.f("pk_job_inputs")),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_job_inputs_job", "job_inputs", ["job"], unique=False)
    op.create_index("ix_files_digest", "files", ["digest"], unique=False)
    op.create_index("ix_task_files_digest", "task_files", ["digest"], unique=False)
    op.add_column("jobs", sa.Column("files_gone", Moment(), nullable=True))
    op.add_column("jobs", sa.Column("logs_gone", Moment(), nullable=True))
    op.add_column("jobs", sa.Column("attempts_gone", Moment(), nullable=True))
    op.create_index("ix_jobs_ended", "jobs", ["ended", "number"], unique=False)
    op.add_column("log_chunks", sa.Column("time", Moment(), nullable=True))
    op.add_column("log_chunks", sa.Column("pieces", Document(), nullable=True))
    _name_what_is_there()


def _name_what_is_there() -> None:
    """All content that is known counts as used now; jobs name the inputs that their descriptions have."""
    connection = op.get_bind()
    contents = sa.table("contents", sa.column("digest"), sa.column("used", Moment()), sa.column("doomed"))
    known = "SELECT digest FROM files UNION SELECT digest FROM task_files"
    now = sa.literal(datetime.now(UTC), Moment())
    rows = sa.select(sa.text("digest"), now, sa.false()).select_from(sa.text(f"({known}) AS known"))
    connection.execute(contents.insert().from_select(["digest", "used", "doomed"], rows))
    connection.execute(
        sa.text("UPDATE files SET time = :now").bindparams(sa.bindparam("now", datetime.now(UTC), Moment()))
    )
    for number, spec in connection.execute(sa.text("SELECT number, spec FROM jobs WHERE input_files > 0")).all():
        digests = {file["digest"] for file in _plain(spec)["inputs"]}
        for (blocks,) in connection.execute(sa.text("SELECT rows FROM job_rows WHERE job = :job"), {"job": number}):
            digests |= {file["digest"] for row in _plain(blocks) for file in row["inputs"]}
        inputs = sa.table("job_inputs", sa.column("digest"), sa.column("job"))
        if digests:
            connection.execute(inputs.insert(), [{"digest": one, "job": number} for one in sorted(digests)])


def _plain(document: Any) -> Any:
    return json.loads(document) if isinstance(document, str | bytes) else document


def downgrade() -> None:
    raise NotImplementedError("restore the backup instead")
