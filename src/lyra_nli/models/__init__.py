"""Models: immutable bases, pair encoding, LoRA placement and merging, judging."""
