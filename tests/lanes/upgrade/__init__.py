"""Builds of several versions in one cluster."""
