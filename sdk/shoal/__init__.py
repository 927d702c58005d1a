"""Shoal: client, command line and what job code imports."""
