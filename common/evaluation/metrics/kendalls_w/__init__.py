"""How far labelers agree on the order of some responses."""
