"""Fixtures of these tests."""

from tests.kit.open_folder import open_folder

__all__ = ["open_folder"]
