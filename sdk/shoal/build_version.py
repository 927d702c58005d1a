"""The version of this build, as its distribution says it."""

from shoal.version import VERSION


def build_version() -> str:
    """Return the version of the SDK, which all parts of a build share: `0.1.0`."""
    return VERSION
