"""Figures of a process: what they are called, how they are counted, and how they are served to Prometheus."""
