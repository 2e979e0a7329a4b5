"""DeepSpeed's JSON configs, and how they are merged with batch sizes and precision."""
