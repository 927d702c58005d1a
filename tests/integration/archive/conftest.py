"""Servers that the archive's tests talk to."""

from tests.kit.s3_servers import ministack_endpoint, moto_endpoint

__all__ = ["ministack_endpoint", "moto_endpoint"]
