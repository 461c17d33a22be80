"""Dataset: rows from people -> clean, grouped, split, hashed examples."""
