"""Traces that leave for a real gRPC server."""
