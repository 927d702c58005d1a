"""What every test has at hand. The time limit of a test stands in pyproject.toml."""

from hypothesis import HealthCheck, settings

from tests.kit.mosquitto import mosquitto

__all__ = ["mosquitto"]

# A property is true or false, however busy the machine is.
settings.register_profile("shoal", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shoal")
