"""Addresses of files of folder inputs: agents hold no keys, and a listing may be long."""

from dataclasses import dataclass

from shoal.names import AttemptRef


@dataclass(frozen=True, slots=True)
class FilesWanted:
    """A request for the addresses of `count` files of an input, from the `first` of its listing on."""

    ref: AttemptRef
    input: str
    first: int
    count: int


@dataclass(frozen=True, slots=True)
class FilesGranted:
    """The answer to `FilesWanted`: one address for each file, or the problem why there are none."""

    ref: AttemptRef
    input: str
    first: int
    urls: tuple[str, ...] = ()
    problem: str = ""
