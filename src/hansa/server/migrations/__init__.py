"""Migrations of the schema, run by Alembic (see hansa.server.schema)."""
