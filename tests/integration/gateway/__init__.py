"""A gateway in front of a real controller."""
