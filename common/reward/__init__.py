"""ICE-Reward (paper §3.2): pairwise losses, reward training, reward diagnostics."""
