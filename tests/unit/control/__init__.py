"""Tests of the control core (unit)."""
