"""Actor, critic, reference and reward model: loading, heads, LoRA, saving, log-probabilities."""
