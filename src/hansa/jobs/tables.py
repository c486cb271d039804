"""Tables of jobs. What each row means and when it exists; see docs/explanation/tasks.md.

A job of a million tasks is one row of ``jobs`` until pilots take it. A *lease* is a range of its indices, given to
one pilot. A task has a row of its own only where it is exceptional (``retries``: it waits to run again) or ended
(``results``: how; its primary key is what makes a result be accepted exactly once).
"""

from __future__ import annotations

import sqlalchemy as sa

from hansa.kernel.database import Document, Moment, metadata
from hansa.kernel.reconcile import reconcile_columns

_Serial = sa.BigInteger().with_variant(sa.Integer, "sqlite")

queues = sa.Table(
    "queues",
    metadata,
    sa.Column("id", _Serial, primary_key=True, autoincrement=True),
    sa.Column("owner_id", sa.Text, nullable=False),
    sa.Column("cores", sa.Integer, nullable=False),
    sa.Column("memory_mib", sa.Integer, nullable=False),
    sa.Column("gpus", sa.Integer, nullable=False),
    sa.Column("wall_time_s", sa.Integer, nullable=False),
    sa.Column("site", sa.Text, nullable=False),  # "" is any
    sa.Column("vo", sa.Text, nullable=False, server_default=""),
    sa.Column("vo_group", sa.Text, nullable=False, server_default=""),
    sa.Column("needs", sa.Text, nullable=False, server_default=""),  # all needs as JSON; the columns are for SQL
    sa.Column("digest", sa.Text, nullable=False, unique=True),  # of owner, VO, group and needs
    sa.Column("standing", Document),  # why nothing of it can start now; null: it can, or is about to
    sa.Index("ix_queues_owner", "owner_id"),
)

jobs = sa.Table(
    "jobs",
    metadata,
    sa.Column("number", _Serial, primary_key=True, autoincrement=True),
    sa.Column("id", sa.Text, nullable=False, unique=True),
    sa.Column("owner_id", sa.Text, nullable=False),
    sa.Column("owner_name", sa.Text, nullable=False),
    sa.Column("vo", sa.Text),
    sa.Column("name", sa.Text),
    sa.Column("queue_id", sa.BigInteger, sa.ForeignKey("queues.id"), nullable=False),
    sa.Column("rank", sa.Integer, nullable=False),  # 10 - priority: smaller is earlier, so that one index sorts it
    sa.Column("spec", Document, nullable=False),  # a JobSpec without rows; requirements filled in
    sa.Column("has_rows", sa.Boolean, nullable=False),
    sa.Column("first", sa.BigInteger, nullable=False),
    sa.Column("count", sa.BigInteger, nullable=False),
    sa.Column("next_index", sa.BigInteger, nullable=False),  # tasks from here on were never leased
    sa.Column("killed_from", sa.BigInteger),  # … and from here on never will be
    sa.Column("ahead", sa.Integer, nullable=False),  # results of tasks that were never leased (killed one by one)
    sa.Column("again", sa.Integer, nullable=False),  # rows of ``retries`` that wait (not leased)
    sa.Column("open", sa.Boolean, nullable=False),  # whether something can be leased
    sa.Column("done", sa.BigInteger, nullable=False),
    sa.Column("failed", sa.BigInteger, nullable=False),
    sa.Column("killed", sa.BigInteger, nullable=False),
    sa.Column("kill_requested", sa.Boolean, nullable=False),
    sa.Column("phase", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("message", sa.Text, nullable=False),
    sa.Column("waiting_on", sa.Text, nullable=False),
    sa.Column("since", Moment, nullable=False),
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.Column("input_files", sa.Integer, nullable=False),
    sa.Column("input_bytes", sa.BigInteger, nullable=False),
    sa.Column("exit_code", sa.Integer),
    sa.Column("created", Moment, nullable=False),
    sa.Column("started", Moment),
    sa.Column("ended", Moment),
    sa.Column("vo_group", sa.Text),
    sa.Column("group_name", sa.Text),  # of a set of jobs
    sa.Column("command", sa.Text, nullable=False, server_default=""),  # its beginning, to search in
    sa.Column("labels", Document),
    sa.Column("comment", sa.Text),
    sa.Column("sites", Document),  # where tasks of it were given to pilots
    sa.Column("held", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("blockers", sa.Integer, nullable=False, server_default="0"),  # jobs that must end before
    sa.Column("wake_at", Moment),  # not open before: all that waits is backing off
    sa.Column("deadline", Moment),
    sa.Column("files_gone", Moment),  # since when they are not kept any more
    sa.Column("logs_gone", Moment),
    sa.Column("attempts_gone", Moment),
    sa.Column("series_kept", sa.Integer, nullable=False, server_default="0"),  # rows of task_series of what ended
    sa.Index("ix_jobs_phase", "owner_id", "phase", "number"),
    sa.Index("ix_jobs_group", "owner_id", "group_name", "number"),
    sa.Index("ix_jobs_search", "owner_id", "number", "phase", "created", "ended", "count", "exit_code", "vo"),
    sa.Index("ix_jobs_text", "owner_id", "number", "name", "command"),
    sa.Index(
        "ix_jobs_wake",
        "owner_id",
        "wake_at",
        sqlite_where=sa.text("wake_at IS NOT NULL"),
        postgresql_where=sa.text("wake_at IS NOT NULL"),
    ),
    sa.Index(
        "ix_jobs_deadline",
        "deadline",
        sqlite_where=sa.text("deadline IS NOT NULL"),
        postgresql_where=sa.text("deadline IS NOT NULL"),
    ),
    sa.Index(
        "ix_jobs_open",
        "queue_id",
        "rank",
        "number",
        sqlite_where=sa.text("open"),
        postgresql_where=sa.text("open"),
    ),
    sa.Index("ix_jobs_ended", "ended", "number"),
    sqlite_autoincrement=True,
)

job_marks = sa.Table(  # by what a job is found: its labels (kind "label"), the sites where it ran ("site")
    "job_marks",
    metadata,
    sa.Column("owner_id", sa.Text, primary_key=True),
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("value", sa.Text, primary_key=True),
    sa.Column("job", sa.BigInteger, primary_key=True),
    sqlite_with_rowid=False,
)

job_links = sa.Table(  # a job that waits for another one to end
    "job_links",
    metadata,
    sa.Column("job", sa.BigInteger, primary_key=True),
    sa.Column("needs", sa.BigInteger, primary_key=True, index=True),
    sa.Column("how", sa.Text, nullable=False),  # "ok": done; "any": ended
    sa.Column("met", sa.Boolean, nullable=False),
    sqlite_with_rowid=False,
)

share_usage = sa.Table(  # what was used, decayed: see jobs/shares.py
    "share_usage",
    metadata,
    sa.Column("vo", sa.Text, primary_key=True),
    sa.Column("vo_group", sa.Text, primary_key=True),
    sa.Column("owner_id", sa.Text, primary_key=True),
    sa.Column("period", sa.BigInteger, nullable=False),
    sa.Column("amount", sa.Float, nullable=False),  # core seconds, worth what they were at the start of the period
    sqlite_with_rowid=False,
)

share_weights = sa.Table(  # of a VO (""), a group ("VO"), or a user ("VO/GROUP"), beside their like
    "share_weights",
    metadata,
    sa.Column("parent", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("weight", sa.Float, nullable=False),
    sqlite_with_rowid=False,
)

ROWS_PER_BLOCK = 256

job_rows = sa.Table(
    "job_rows",
    metadata,
    sa.Column("job", sa.BigInteger, primary_key=True),
    sa.Column("block", sa.BigInteger, primary_key=True),  # rows block*256 … of the array, counted from 0
    sa.Column("rows", Document, nullable=False),  # a list of TaskRow
)

leases = sa.Table(
    "leases",
    metadata,
    sa.Column("id", _Serial, primary_key=True, autoincrement=True),
    sa.Column("job", sa.BigInteger, sa.ForeignKey("jobs.number"), nullable=False, index=True),
    sa.Column("first", sa.BigInteger, nullable=False),
    sa.Column("last", sa.BigInteger, nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("remaining", sa.Integer, nullable=False),  # indices that the pilot still owes
    sa.Column("running", sa.Integer, nullable=False),  # of them started, as the pilot last said
    sa.Column("pilot_id", sa.Text, nullable=False, index=True),
    sa.Column("session", sa.Text, nullable=False),
    sa.Column("sequence", sa.BigInteger, nullable=False),
    sa.Column("kill", Document, nullable=False),  # indices to kill; the whole job's wish is in jobs.kill_requested
    sa.Column("created", Moment, nullable=False),
    sqlite_autoincrement=True,
)


def _how_it_ended() -> list[sa.Column[object]]:
    return [
        sa.Column("lease", sa.BigInteger),  # None: never leased
        sa.Column("phase", sa.Text, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("exit_code", sa.Integer),
        sa.Column("signal", sa.Integer),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("pilot_id", sa.Text),
        sa.Column("ended", Moment, nullable=False),
        sa.Column("wall_s", sa.Float, nullable=False),
        sa.Column("cpu_s", sa.Float, nullable=False),
        sa.Column("memory_mib", sa.Float, nullable=False),
    ]


results = sa.Table(
    "results",
    metadata,
    sa.Column("job", sa.BigInteger, primary_key=True),
    sa.Column("index", sa.BigInteger, primary_key=True),
    sa.Column("attempt", sa.Integer, nullable=False),
    *_how_it_ended(),
    sa.Column("fields", Document),
    sqlite_with_rowid=False,
)

array_tallies = sa.Table(  # results of large arrays by stretches of indices: see jobs/tallies.py
    "array_tallies",
    metadata,
    sa.Column("job", sa.BigInteger, primary_key=True),
    sa.Column("block", sa.BigInteger, primary_key=True),
    sa.Column("done", sa.Integer, nullable=False),
    sa.Column("failed", sa.Integer, nullable=False),
    sa.Column("killed", sa.Integer, nullable=False),
    sqlite_with_rowid=False,
)

attempts = sa.Table(
    "attempts",
    metadata,
    sa.Column("job", sa.BigInteger, primary_key=True),
    sa.Column("index", sa.BigInteger, primary_key=True),
    sa.Column("attempt", sa.Integer, primary_key=True),
    *_how_it_ended(),
    sqlite_with_rowid=False,
)

retries = sa.Table(
    "retries",
    metadata,
    sa.Column("job", sa.BigInteger, primary_key=True),
    sa.Column("index", sa.BigInteger, primary_key=True),
    sa.Column("attempt", sa.Integer, nullable=False),  # the next one, or the one that is leased
    sa.Column("failures", sa.Integer, nullable=False),
    sa.Column("node_faults", sa.Integer, nullable=False),
    sa.Column("crashes", sa.Integer, nullable=False),
    sa.Column("leased", sa.Boolean, nullable=False),
    sa.Column("not_before", Moment, nullable=False),
    sqlite_with_rowid=False,
)

task_files = sa.Table(
    "task_files",
    metadata,
    sa.Column("job", sa.BigInteger, primary_key=True),
    sa.Column("index", sa.BigInteger, primary_key=True),
    sa.Column("path", sa.Text, primary_key=True),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("executable", sa.Boolean, nullable=False),
    sa.Index("ix_task_files_digest", "digest"),
    sqlite_with_rowid=False,
)

job_inputs = sa.Table(  # which content a job needs, each once: what they name is not deleted
    "job_inputs",
    metadata,
    sa.Column("digest", sa.Text, primary_key=True),
    sa.Column("job", sa.BigInteger, primary_key=True, index=True),
    sqlite_with_rowid=False,
)

contents = sa.Table(  # what may be in the object store: it is named here before it is put there
    "contents",
    metadata,
    sa.Column("digest", sa.Text, primary_key=True),
    sa.Column("used", Moment, nullable=False),  # when somebody last meant to count on it
    sa.Column("doomed", sa.Boolean, nullable=False),  # it is being deleted: nobody may count on it
    sqlite_with_rowid=False,
)

files = sa.Table(  # which content an owner has brought here: nobody gets content by knowing its digest
    "files",
    metadata,
    sa.Column("owner_id", sa.Text, primary_key=True),
    sa.Column("digest", sa.Text, primary_key=True),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("time", Moment, nullable=False),  # of its last use
    sa.Index("ix_files_digest", "digest"),
    sqlite_with_rowid=False,
)

log_chunks = sa.Table(  # where the object store has log bytes; never the bytes themselves
    "log_chunks",
    metadata,
    sa.Column("id", _Serial, primary_key=True, autoincrement=True),
    sa.Column("job", sa.BigInteger, nullable=False),
    sa.Column("first", sa.BigInteger, nullable=False),
    sa.Column("last", sa.BigInteger, nullable=False),
    sa.Column("object", sa.Text, nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("time", Moment),
    sa.Column("pieces", Document),  # what is where in it, where that are few; else its first line says it
    sa.Index("ix_log_chunks_job", "job", "id"),
    sqlite_autoincrement=True,
)

task_checkpoints = sa.Table(  # what tasks that are not done keep across attempts
    "task_checkpoints",
    metadata,
    sa.Column("job", sa.BigInteger, primary_key=True),
    sa.Column("index", sa.BigInteger, primary_key=True),
    sa.Column("path", sa.Text, primary_key=True),
    sa.Column("digest", sa.Text, nullable=False, index=True),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("executable", sa.Boolean, nullable=False),
    sqlite_with_rowid=False,
)

task_series = sa.Table(  # what attempts that ran for a while used over their time: see jobs/store_series.py
    "task_series",
    metadata,
    sa.Column("job", sa.BigInteger, primary_key=True),
    sa.Column("index", sa.BigInteger, primary_key=True),
    sa.Column("attempt", sa.Integer, primary_key=True),
    sa.Column("series", Document, nullable=False),  # a protocol.UsageSeries
    sa.Column("seen", Moment, nullable=False),  # when its pilot told it
)

notices = sa.Table(  # that somebody is to be told of a job, and whether it was done: see jobs/notices.py
    "notices",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("owner_id", sa.Text, nullable=False),
    sa.Column("job", sa.BigInteger, nullable=False, index=True),
    sa.Column("address", sa.Text, nullable=False),  # a URL, or mailto:…
    sa.Column("body", Document, nullable=False),
    sa.Column("phase", sa.Text, nullable=False),  # "waiting", "sent", "failed"
    sa.Column("message", sa.Text, nullable=False),  # why it was not told
    sa.Column("created", Moment, nullable=False),
    *reconcile_columns(),
)

channels = sa.Table(  # shells and forwards beside running tasks, while they are open and a little longer
    "channels",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("owner_id", sa.Text, nullable=False, index=True),
    sa.Column("job", sa.BigInteger, nullable=False),
    sa.Column("index", sa.BigInteger, nullable=False),
    sa.Column("lease", sa.BigInteger, nullable=False),
    sa.Column("pilot_id", sa.Text, nullable=False, index=True),
    sa.Column("order", Document, nullable=False),  # a protocol.Channel
    sa.Column("is_open", sa.Boolean, nullable=False),  # the pilot has answered
    sa.Column("closed", sa.Text),  # why it is over
    sa.Column("created", Moment, nullable=False),
    sa.Column("user_seen", Moment, nullable=False),
    sa.Column("pilot_seen", Moment, nullable=False),
    sa.Column("from_user", sa.BigInteger, nullable=False),  # the last piece that was accepted from there
    sa.Column("from_pilot", sa.BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

channel_pieces = sa.Table(  # on their way; gone when the other end has them
    "channel_pieces",
    metadata,
    sa.Column("channel", sa.Text, primary_key=True),
    sa.Column("origin", sa.Text, primary_key=True),  # "user" or "pilot"
    sa.Column("piece", sa.BigInteger, primary_key=True),
    sa.Column("frames", Document, nullable=False),  # a list of protocol.Frame
    sqlite_with_rowid=False,
)

pilots = sa.Table(
    "pilots",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("site", sa.Text, nullable=False),
    sa.Column("driver", sa.Text, nullable=False),
    sa.Column("owner_id", sa.Text, nullable=False, index=True),
    sa.Column("cores", sa.Integer, nullable=False),
    sa.Column("memory_mib", sa.Integer, nullable=False),
    sa.Column("gpus", Document, nullable=False),
    sa.Column("phase", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("message", sa.Text, nullable=False),
    sa.Column("waiting_on", sa.Text, nullable=False),
    sa.Column("since", Moment, nullable=False),
    sa.Column("created", Moment, nullable=False),
    sa.Column("session", sa.Text),
    sa.Column("sequence", sa.BigInteger, nullable=False),
    sa.Column("arrival", sa.Text),  # of its newest request: an older one that is still held says nothing any more
    sa.Column("last_seen", Moment),
    sa.Column("running", Document, nullable=False),  # [[lease, index], …] as the pilot last said
    sa.Column("setups", Document, nullable=False),
    sa.Column("node", Document),
    sa.Column("tags", Document, nullable=False, server_default="[]"),  # of its site, when it was started
    sa.Column("required_tags", Document, nullable=False, server_default="[]"),
    sa.Column("endpoint_id", sa.Text),  # of the site; null: the embedded site has none
    sa.Column("nodes", sa.Integer, nullable=False, server_default="1"),  # cores and the like are those of each
    sa.Column("is_whole", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("wall_time_s", sa.Float),
    sa.Column("job", sa.BigInteger),  # the first one that it was started for
    sa.Column("labels", Document),  # for the site's administrator
    sa.Column("batch", Document, nullable=False, server_default="[]"),  # options of the jobs that it is for
    sa.Column("batch_id", sa.Text),  # its number in the batch system
    sa.Column("script", sa.Text),  # what the batch system was given
    sa.Column("stop", sa.Text),  # what the next exchange tells it: "drain" or "now"
    sa.Column("vo", sa.Text),  # for which it was started, with whose credential; null: for its owner alone
    sa.Column("started", Moment),  # when it said its first word
    sa.Column("busy_s", sa.Float, nullable=False, server_default="0"),  # core seconds of the tasks that it reported
    sa.Column("called", sa.Boolean, nullable=False, server_default=sa.false()),  # a channel waits for its answer
    sa.Column("enrolled_by", sa.Text),  # digest of the secret of whoever gave its ticket for its token
    *reconcile_columns(),
    sa.Index("ix_pilots_site", "site", "id"),
)

registry_logins = sa.Table(
    "registry_logins",
    metadata,
    sa.Column("owner_id", sa.Text, primary_key=True),
    sa.Column("registry", sa.Text, primary_key=True),
    sa.Column("username", sa.Text, nullable=False),
    sa.Column("sealed", sa.Text, nullable=False),  # user name and password
    sa.Column("since", Moment, nullable=False),
)
