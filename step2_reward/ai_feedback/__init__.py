"""AI feedback: a language model behind an endpoint ranks responses by the paper's criteria."""
