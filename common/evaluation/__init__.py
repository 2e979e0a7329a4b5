"""The eight criteria, win rates and the run report."""
