"""Case E7's uploads in parts with the archive at radosgw."""

from tests.integration.edge.test_e7_uploads import *  # noqa: F403 - all that the case asks for
