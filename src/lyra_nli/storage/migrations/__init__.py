"""Numbered, append-only migrations: each adds what is missing and touches nothing else."""
