"""Shared fixtures: real servers, free ports and the one way to wait for a condition."""
