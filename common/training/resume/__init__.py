"""Checkpoints and exact resume: a run that was killed ends with the weights of one that was not."""
