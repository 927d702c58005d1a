"""Environments: built from a recipe, kept by its key."""
