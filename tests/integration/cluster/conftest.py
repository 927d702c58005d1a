"""Servers that the cluster's tests talk to."""

from tests.kit.s3_servers import moto_endpoint

__all__ = ["moto_endpoint"]
