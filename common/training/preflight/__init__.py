"""What is looked at on all nodes before the first stage: `python -m common.training.preflight`."""
