"""Membership over a network that fails."""
