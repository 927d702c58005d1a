"""Names of files beside other files: `NAME.part`, and still a name where NAME is as long as can be."""

import hashlib
import os
from pathlib import Path

_NAME_BYTES_MAX = 255


def beside(path: Path, affix: str) -> Path:
    """Return the same path with a word behind its name, or behind a digest of it if that is long.

    It is the same for the same name, so that what was begun under it is found again.
    """
    name = f"{path.name}{affix}"
    if len(os.fsencode(name)) > _NAME_BYTES_MAX:
        name = f".{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:32]}{affix}"
    return path.with_name(name)
