"""How many files a process may have open, of which each connection is one.

Rule: a server takes what it may have, up to what our systemd units give it. The usual soft limit of 1,024
is for programs that call `select`; strangers use it up with a thousand handshakes that they do not finish,
and then the store and gossip of that process have no descriptor left either.
Source: setrlimit(2); server_handshake_timeout_ms in `services.runtime.rpc`.
"""

import resource
from typing import Final

OPEN_FILES: Final = 65_536


def allow_open_files() -> None:
    """Raise the soft limit of this process as far as its hard limit lets it, up to `OPEN_FILES`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
