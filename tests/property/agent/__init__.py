"""Tests of the agent (property)."""
