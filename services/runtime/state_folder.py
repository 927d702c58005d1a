"""The folder in which a process of ours keeps what it knows: its user's alone."""

import os
import stat
from pathlib import Path
from typing import Final

from services.runtime.process import StartRefusedError

PRIVATE_FOLDER: Final = 0o700
PRIVATE_FILE: Final = 0o600
_OTHERS: Final = 0o077
_PASS: Final = 0o011


def prepare_state_folder(folder: Path, ours: str, *, passed: bool = False) -> None:
    """Make the folder if it is missing, and take the rights of all others away.

    What lies in it holds variables of jobs, which may be secrets. The folder keeps others out; the
    files and sockets directly in it, which earlier versions left open, are closed too. A folder
    with other things in it is a shared one, such as /tmp: it is used as it is.

    Args:
        folder: the state folder.
        ours: name of a file that lies in every folder of this kind that was used before.
        passed: leave others the right to pass it on the way to what is theirs, and no other, if they have it.

    Raises:
        StartRefusedError: It cannot be made or looked into, or belongs to another user.
    """
    try:
        folder.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
        owner, we = folder.stat().st_uid, os.geteuid()
        if we not in {0, owner}:
            raise StartRefusedError(
                f"the state folder {folder} belongs to user {owner}, and this process runs as user "
                f"{we}: run it as that user, give the folder away with `chown -R {we} {folder}`, or "
                "choose another --state"
            )
        entries = list(os.scandir(folder))
        if entries and all(entry.name != ours for entry in entries):
            return
        _close(folder, _OTHERS & ~_PASS if passed else _OTHERS)
        for entry in entries:
            mode = entry.stat(follow_symlinks=False).st_mode
            if stat.S_ISREG(mode) or stat.S_ISSOCK(mode):
                _close(Path(entry.path))
    except OSError as error:
        raise StartRefusedError(
            f"the state folder {folder} cannot be used: {error.strerror}; make it, or its disk, "
            "readable and writable for this user, or choose another --state"
        ) from error


def create_private(path: Path) -> bool:
    """Make an empty file that is its user's alone, unless there is one; say whether it was made.

    What is made beside a database takes over the rights of its file.

    Raises:
        OSError: It cannot be made.
    """
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE_FILE))
    except FileExistsError:
        return False
    return True


def _close(path: Path, rights: int = _OTHERS) -> None:
    """Take rights of others; a disk that is read-only keeps them, and is used as it is."""
    mode = stat.S_IMODE(path.lstat().st_mode)
    if mode & rights:
        try:
            path.chmod(mode & ~rights)
        except OSError as error:
            if (
                not isinstance(error, PermissionError)
                and not os.statvfs(path).f_flag & os.ST_RDONLY
            ):
                raise
