"""How often one model's answer is better than another's."""
