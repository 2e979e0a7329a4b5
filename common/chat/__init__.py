"""Talking to the models that a run has made, on a terminal or on a page."""
