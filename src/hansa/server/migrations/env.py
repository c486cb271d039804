"""What Alembic runs: one connection, given by hansa.server.schema."""

from typing import Any

from alembic import context

from hansa.kernel.database import Document, Moment
from hansa.server.tables import metadata


def render_item(kind: str, item: Any, autogen_context: Any) -> Any:
    """Write our column types by their names; Alembic's own words for everything else."""
    if kind == "type" and isinstance(item, Moment | Document):
        autogen_context.imports.add("from hansa.kernel.database import Document, Moment")
        return f"{type(item).__name__}()"
    return False


connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=metadata,
    render_item=render_item,
    render_as_batch=connection.dialect.name == "sqlite",
    transaction_per_migration=False,
)
with context.begin_transaction():
    context.run_migrations()
