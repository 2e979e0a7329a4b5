"""One change at a time: pipelines that differ in one thing, compared over seeds."""
