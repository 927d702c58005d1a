"""Programs for aarch64 on a machine of another kind: its kernel hands them to qemu for as long as a block lasts."""

import contextlib
import fcntl
import os
import platform
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.kit.programs import program, unavailable

FORMATS: Final = Path("/proc/sys/fs/binfmt_misc")
FORMAT: Final = FORMATS / "qemu-aarch64"
_OF_DEBIAN: Final = Path("/usr/lib/binfmt.d/qemu-aarch64.conf")
"""What qemu-user-static says to the kernel; its flag F lets qemu work in roots that do not have it."""
_DONE: Final = Path(tempfile.gettempdir()) / "shoal-aarch64-programs"
"""What runs of the tests have done to this kernel. A run that needs it has it locked, shared with others."""


@contextlib.contextmanager
def aarch64_programs() -> Iterator[None]:
    """Let the kernel run them; the last run that needs it undoes what was done, whatever happened in between."""
    if platform.machine() == "aarch64":
        yield
        return
    program("qemu-aarch64-static")
    if not FORMAT.exists() and os.geteuid() != 0:
        unavailable("programs for aarch64 need qemu in binfmt_misc, which root registers")
    with _DONE.open("a+") as done:
        while not _entered(done.fileno()):
            pass  # the last other run has undone it just now
        try:
            yield
        finally:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(done, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _undo(done.fileno())


def _entered(done: int) -> bool:
    """Share the lock with other runs; False if they have ended meanwhile, and what they did with them."""
    try:
        fcntl.flock(done, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _register(done)
    except BlockingIOError:
        fcntl.flock(done, fcntl.LOCK_SH)
        return FORMAT.exists()
    fcntl.flock(done, fcntl.LOCK_SH)
    return True


def _register(done: int) -> None:
    if not (FORMATS / "register").exists():
        subprocess.run([program("mount"), "-t", "binfmt_misc", "binfmt_misc", FORMATS], check=True)
        os.write(done, b"mounted ")
    if not FORMAT.exists():
        (FORMATS / "register").write_bytes(_OF_DEBIAN.read_bytes())
        os.write(done, b"registered ")


def _undo(done: int) -> None:
    was = os.pread(done, 100, 0).split()
    if b"registered" in was and FORMAT.exists():
        FORMAT.write_text("-1")
    if b"mounted" in was and (FORMATS / "register").exists():
        subprocess.run([program("umount"), FORMATS], check=True)
    os.ftruncate(done, 0)
