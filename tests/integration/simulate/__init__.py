"""Whole simulations as a user starts them."""
