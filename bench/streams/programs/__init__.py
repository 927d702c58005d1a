"""Programs that the benchmarks run as jobs."""
