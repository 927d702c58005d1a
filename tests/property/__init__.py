"""Property tests: laws that hold for every generated input."""
