"""Tests of the control core (property)."""
