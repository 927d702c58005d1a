"""Databases that releases have written, opened by this build."""
