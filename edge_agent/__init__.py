"""Agent: the process on a node that prepares, runs and reports attempts."""
