"""A sample project, and one turn of the loop on it."""
