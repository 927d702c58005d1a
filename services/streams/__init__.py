"""Streams: ordered records in blocks, with sequence, credit, retention and resume."""
