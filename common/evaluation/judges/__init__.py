"""The eight criteria as people, a language model or the embedded rubric judge them."""
