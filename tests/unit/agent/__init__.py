"""Tests of the agent (unit)."""
