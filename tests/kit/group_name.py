"""Names of control groups that no other run of tests has."""

import os
import uuid


def group_name() -> str:
    """Return a name for `ControlGroups.open`."""
    return f"test-{os.getpid()}-{uuid.uuid4().hex[:8]}"
