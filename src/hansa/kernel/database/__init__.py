"""The database: one schema, one Protocol, two dialects.

``open_database(url)`` gives SQLite (embedded) or PostgreSQL (a federation). Rooms write SQLAlchemy Core
statements against the tables of their ``store.py``; the few that differ per dialect look at ``tx.dialect``.
"""

from hansa.kernel.database.base import Database, Tx, insert_for, insert_ignore, metadata, open_database
from hansa.kernel.database.types import Document, Moment

__all__ = ["Database", "Document", "Moment", "Tx", "insert_for", "insert_ignore", "metadata", "open_database"]
