"""How often the preferred response has the higher score."""
