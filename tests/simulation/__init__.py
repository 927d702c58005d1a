"""Simulation tests: many machines on a virtual clock and a seeded network."""
