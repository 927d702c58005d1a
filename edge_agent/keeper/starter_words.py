"""What a keeper and its starters say to each other: packets on a socket of sequenced packets, trusted at both ends.

An order brings descriptors: first those of the groups' files that it joins, then those that the program gets.
"""

import os
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

PACKET_BYTES: Final = 160 * 1024
"""Longest packet: below the least that a kernel lets a socket send (net.core.wmem_default)."""

START: Final = b"S"
SIGNAL: Final = b"K"
RETIRE: Final = b"R"
"""The starter ends at once, and its programs go on."""

READY: Final = b"y"
CANNOT: Final = b"n"
STARTED: Final = b"s"
FAILED: Final = b"f"
REFUSED: Final = b"r"
ENDED: Final = b"e"

_SIGNAL: Final = struct.Struct("=cii")
_STARTED: Final = struct.Struct("=ci")
_ENDED: Final = struct.Struct("=ci?i")
_ORDER: Final = struct.Struct("=cIIQHHHHH")
_END: Final = b"\0"


@dataclass(frozen=True, slots=True)
class Home:
    """The file by which a starter comes back into its own control group of a hierarchy."""

    hierarchy: str
    path: str


@dataclass(frozen=True, slots=True)
class Order:
    """One program, as a starter needs to know it.

    Attributes:
        uid: its user, and `gid` its group.
        mark: what its processes are known by.
        join: files of the control groups that it joins, for people; their descriptors come along.
        hierarchies: those of the groups.
        numbers: what the program calls the descriptors that come along.
        cwd: its folder.
        stdin: what is opened as its standard input, with its rights; empty for none.
        argv: its words.
        env: its variables.
    """

    uid: int
    gid: int
    mark: int
    join: Sequence[str]
    hierarchies: Sequence[str]
    numbers: Sequence[int]
    cwd: str
    stdin: str
    argv: Sequence[str]
    env: Mapping[str, str]


def order_bytes(order: Order) -> bytes:
    """Write an order.

    Raises:
        ValueError: a word holds a NUL, or is no text of a path.
    """
    texts = [
        *(order.cwd, order.stdin),
        *order.join,
        *order.hierarchies,
        *order.argv,
        *(f"{name}={text}" for name, text in order.env.items()),
    ]
    words = os.fsencode("\0".join(texts))
    if words.count(_END) != len(texts) - 1:
        raise ValueError("a word holds a NUL")
    counts = len(order.join), len(order.hierarchies), len(order.argv), len(order.env)
    head = _ORDER.pack(START, order.uid, order.gid, order.mark, *counts, len(order.numbers))
    return head + struct.pack(f"={len(order.numbers)}H", *order.numbers) + words


def read_order(packet: bytes) -> Order:
    """Read what `order_bytes` wrote."""
    _, uid, gid, mark, join, hierarchies, argv, _, numbers = _ORDER.unpack_from(packet)
    places = struct.unpack_from(f"={numbers}H", packet, _ORDER.size)
    cwd, stdin, *texts = os.fsdecode(packet[_ORDER.size + 2 * numbers :]).split("\0")
    first, second, third = join, join + hierarchies, join + hierarchies + argv
    env: dict[str, str] = {}
    for text in texts[third:]:
        name, _, value = text.partition("=")
        env[name] = value
    joined, left, words = texts[:first], texts[first:second], texts[second:third]
    return Order(uid, gid, mark, joined, left, places, cwd, stdin, words, env)


def signal_bytes(pid: int, number: int) -> bytes:
    """Ask for a signal to the group of a program."""
    return _SIGNAL.pack(SIGNAL, pid, number)


def read_signal(packet: bytes) -> tuple[int, int]:
    """Read what `signal_bytes` wrote."""
    _, pid, number = _SIGNAL.unpack(packet)
    return pid, number


def ready() -> bytes:
    """The starter has sealed itself."""
    return READY


def cannot(why: str) -> bytes:
    """It could not seal itself, and ends."""
    return CANNOT + why.encode(errors="replace")[:4096]


def started(pid: int) -> bytes:
    """The program runs."""
    return _STARTED.pack(STARTED, pid)


def failed(why: str) -> bytes:
    """The program cannot be started."""
    return FAILED + why.encode(errors="replace")[:4096]


def refused(why: str) -> bytes:
    """The starter could not start it, and a fork of the keeper may."""
    return REFUSED + why.encode(errors="replace")[:4096]


def ended(pid: int, status: int, *, exited: bool) -> bytes:
    """A program has ended; `status` is its exit code, or the signal that ended it."""
    return _ENDED.pack(ENDED, pid, exited, status)


def read_started(packet: bytes) -> int:
    """Read what `started` wrote."""
    return int(_STARTED.unpack(packet)[1])


def read_ended(packet: bytes) -> tuple[int, bool, int]:
    """Read what `ended` wrote: the process, whether it exited, and its code or signal."""
    _, pid, exited, status = _ENDED.unpack(packet)
    return pid, exited, status


def read_why(packet: bytes) -> str:
    """Read the reason of `cannot`, `failed` or `refused`."""
    return packet[1:].decode(errors="replace")
