"""One module a version; Alembic finds them by their `revision`."""
