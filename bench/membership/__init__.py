"""Figures M3 to M11 of membership, each against its bar and where it can be against its peer."""
