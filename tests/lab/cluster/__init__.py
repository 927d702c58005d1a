"""Whole clusters in network namespaces."""
