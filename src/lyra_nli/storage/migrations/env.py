"""Alembic's entry: migrate over the connection, and in the transaction, that the caller opened."""

from alembic import context

from lyra_nli.storage.generation import VERSION_TABLE

context.configure(connection=context.config.attributes["connection"], version_table=VERSION_TABLE)
context.run_migrations()
