"""What every test has at hand. The time limit of a test stands in pyproject.toml."""

from tests.kit.mosquitto import mosquitto

__all__ = ["mosquitto"]
