"""Where reviews, versions and their history live: SQLite or PostgreSQL, ours or Lyra's."""
