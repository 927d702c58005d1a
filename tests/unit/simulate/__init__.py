"""Faults of simulations, and the folders that they leave."""
