"""What is checked in each stage of a run."""
