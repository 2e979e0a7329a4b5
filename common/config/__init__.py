"""Settings: dataclasses, one per concern, filled from presets, YAML and the command line."""
