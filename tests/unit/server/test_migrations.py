"""Migrations stand in one line: two that follow the same one would keep every server from starting."""

from __future__ import annotations

from alembic.config import Config
from alembic.script import ScriptDirectory

from hansa.server.schema import MIGRATIONS


def test_there_is_one_newest_migration() -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    assert len(ScriptDirectory.from_config(config).get_heads()) == 1
