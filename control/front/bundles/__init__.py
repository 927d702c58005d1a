"""Bundles on their way into the archive: what a client sends of one, and what is known of it already."""
