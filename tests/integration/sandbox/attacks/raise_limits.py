"""Raise one's own resource limits (core files).

Refused at: user; it takes a capability.
"""

import resource
from collections.abc import Mapping


def attack(world: Mapping[str, str]) -> str:
    most = resource.getrlimit(resource.RLIMIT_CORE)[1]
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (most + 1, most + 1))
    except ValueError as error:
        raise PermissionError(0, str(error)) from error
    return f"a core file of {most + 1} bytes may be written"
