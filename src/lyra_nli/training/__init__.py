"""Training: when it is due, the recipe, and the loop that fits a LoRA adapter."""
