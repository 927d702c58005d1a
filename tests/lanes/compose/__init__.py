"""The shipped compose file, built and run."""
