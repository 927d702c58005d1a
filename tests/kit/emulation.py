"""Programs for aarch64 on a machine of another kind: its kernel hands them to qemu for as long as a block lasts."""

import contextlib
import os
import platform
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.kit.programs import program, unavailable

FORMATS: Final = Path("/proc/sys/fs/binfmt_misc")
FORMAT: Final = FORMATS / "qemu-aarch64"
_OF_DEBIAN: Final = Path("/usr/lib/binfmt.d/qemu-aarch64.conf")
"""What qemu-user-static says to the kernel; its flag F lets qemu work in roots that do not have it."""


@contextlib.contextmanager
def aarch64_programs() -> Iterator[None]:
    """Let the kernel run them; what was not so before is undone at the end, whatever happened in between."""
    if platform.machine() == "aarch64":
        yield
        return
    program("qemu-aarch64-static")
    with contextlib.ExitStack() as undo:
        if not (FORMATS / "register").exists():
            if os.geteuid() != 0:
                unavailable("programs for aarch64 need qemu in binfmt_misc, which root registers")
            subprocess.run(
                [program("mount"), "-t", "binfmt_misc", "binfmt_misc", FORMATS], check=True
            )
            undo.callback(lambda: subprocess.run([program("umount"), FORMATS], check=True))
        if not FORMAT.exists():
            if os.geteuid() != 0:
                unavailable("programs for aarch64 need qemu in binfmt_misc, which root registers")
            (FORMATS / "register").write_bytes(_OF_DEBIAN.read_bytes())
            undo.callback(FORMAT.write_text, "-1")
        yield
