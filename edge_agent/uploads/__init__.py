"""Uploads: what an attempt leaves, found and stored."""
