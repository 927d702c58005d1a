"""Tests of the agent (integration)."""
