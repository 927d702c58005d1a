"""Tests of the control core (simulation)."""
