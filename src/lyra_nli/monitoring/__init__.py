"""Watching a model that learns: what it answered, how often it errs, and who is told."""
