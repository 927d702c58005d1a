"""Case E3 with the inputs at radosgw."""

from tests.integration.edge.test_e3_fetch import *  # noqa: F403 - all that the case asks for
