"""Integration tests of services.runtime."""
