"""The paper's benchmarks as lm-evaluation-harness tasks, from the hub or from local files."""
