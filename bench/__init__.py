"""Benchmarks: each figure that we claim, against its peer, in one run."""
