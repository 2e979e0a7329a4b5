"""How far σ(difference of two scores) is from the chance that the first is preferred."""
