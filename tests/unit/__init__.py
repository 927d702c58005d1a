"""Unit tests: pure machines and small parts, without servers."""
