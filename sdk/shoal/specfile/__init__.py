"""Specification files: YAML to `shoal.spec`, with every mistake at once."""
