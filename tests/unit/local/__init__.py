"""The client end of streams."""
