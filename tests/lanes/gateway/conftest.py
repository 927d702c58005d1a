"""The site and the browser of the gateway's other tests."""

from tests.integration.gateway.conftest import chromium, site

__all__ = ["chromium", "site"]
