"""The text of a file that a user wrote."""

from pathlib import Path

from shoal.specfile.folder import missing_remedy
from shoal.specfile.mark import Mark, unusable
from shoal.specfile.tree import BYTES_MAX


def read_source(path: Path) -> str:
    """Read a file as UTF-8, with or without a byte order mark; at most a little more than is allowed.

    Raises:
        SpecFileError: it cannot be read, or is not UTF-8.
    """
    try:
        with path.open("rb") as file:
            data = file.read(BYTES_MAX * 4 + 1)
    except OSError as error:
        message = f"the file cannot be read: {error.strerror}"
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            message = f"there is no such file; {missing_remedy(path)}"
        elif isinstance(error, PermissionError):
            message += "; give yourself the right to read it"
        raise unusable(str(path), message) from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - data.rfind(b"\n", 0, error.start)
        message = f"the byte 0x{data[error.start]:02x} is not UTF-8; save the file as UTF-8"
        raise unusable(str(path), message, Mark(line, column)) from None
