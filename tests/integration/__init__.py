"""Integration tests: real processes and real servers on loopback."""
