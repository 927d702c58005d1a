"""What package indexes ask for: users and passwords of an operator, for builds alone.

A specification stands in views and logs, so it names an index and never a password. The file has the
format of netrc, which pip and uv read by themselves: no password goes through a command line, and
none through this process.
"""

import logging
import netrc
import os
from collections.abc import Mapping
from pathlib import Path

from services.runtime.log import fields
from services.runtime.process import StartRefusedError

LOG = logging.getLogger(__name__)


def index_credentials(path: Path | None) -> Mapping[str, str]:
    """Return the variables that lead an installer to the file; none where there is no file.

    Raises:
        StartRefusedError: it cannot be read, or is not in that format.
    """
    if path is None:
        return {}
    try:
        if path.stat().st_mode & 0o077:
            LOG.warning(
                "others may read the passwords of package indexes; chmod 600 keeps them out",
                extra=fields(path=path),
            )
        netrc.netrc(path)
    except OSError as error:
        raise StartRefusedError(
            f"--index-credentials {path} cannot be read: {error.strerror}; correct the path or its rights"
        ) from error
    except netrc.NetrcParseError as error:
        # What it complains about may be half of a password.
        raise StartRefusedError(
            f"--index-credentials {path} cannot be understood at line {error.lineno}; write "
            "machine HOST login USER password PASSWORD"
        ) from None
    return {"NETRC": os.path.abspath(path)}  # noqa: PTH100 - a link stays one
