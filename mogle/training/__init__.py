"""Training: the adapter (MoGLE and LoRA) on a frozen base, and the tiny base itself."""
