"""Case E7 with the archive at radosgw."""

from tests.integration.edge.test_e7_archive import *  # noqa: F403 - all that the case asks for
