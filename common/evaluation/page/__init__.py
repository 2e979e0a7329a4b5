"""`RUN/report.html`: the run report, a part a module."""
