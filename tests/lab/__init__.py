"""Lab tests: several hosts as network namespaces."""
