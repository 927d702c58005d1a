"""A program of the agent's where users of jobs reach it."""

import os
import shutil
import stat
from pathlib import Path
from typing import Final

from edge_agent.sandbox.reach import EXECUTE, READ, barrier

_PASS: Final = 0o711
_RUN: Final = 0o755


def reached_program(program: Path, folder: Path, uid: int) -> Path:
    """Return the program itself, or a second name in `folder` where a user cannot get to it, as below a home.

    Args:
        program: one file that needs no other of its folder, such as uv.
        folder: where the other name lies, one for each content by its size and time; a copy on another disk.
        uid: such a user.

    Raises:
        OSError: the disk does not take it.
    """
    program = Path(os.path.realpath(program))
    if not program.exists() or barrier(program, uid, READ | EXECUTE) is None:
        return program
    status = program.stat()
    place = folder / f"{status.st_size:x}-{status.st_mtime_ns:x}" / program.name
    if not place.exists():
        for made in (folder, place.parent):
            made.mkdir(mode=_PASS, exist_ok=True)
            made.chmod(_PASS)
        unfinished = place.with_name(f"{place.name}.{os.getpid()}")
        try:
            os.link(program, unfinished)
        except OSError:
            shutil.copyfile(program, unfinished)
        if stat.S_IMODE(unfinished.stat().st_mode) & _RUN != _RUN:
            unfinished.chmod(_RUN)
        unfinished.replace(place)
    return place
