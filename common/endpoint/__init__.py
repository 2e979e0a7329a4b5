"""A language model behind an OpenAI-compatible endpoint, asked within a budget, once each."""
