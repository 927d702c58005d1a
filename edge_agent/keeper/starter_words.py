"""What a keeper and its starters say to each other: packets on a socket of sequenced packets, trusted at both ends.

An order brings descriptors: those that the program gets, and before them those of the groups' files that it joins,
unless the starter has them. The groups stand in the order of the hierarchies of the starter's template. Ends are told
otherwise (`edge_agent.keeper.told_ends`).
"""

import os
import struct
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

PACKET_BYTES: Final = 160 * 1024
"""Longest order: below the least that a kernel lets a socket send (net.core.wmem_default)."""
ANSWER_BYTES: Final = 8 * 1024
"""What no answer reaches."""

START: Final = b"S"
SIGNAL: Final = b"K"
RETIRE: Final = b"R"
"""The starter ends at once, and its programs go on."""

READY: Final = b"y"
CANNOT: Final = b"n"
STARTED: Final = b"s"
FAILED: Final = b"f"
REFUSED: Final = b"r"

_SIGNAL: Final = struct.Struct("=cii")
_STARTED: Final = struct.Struct("=ci")
_ORDER: Final = struct.Struct("=cIIQhHHHH")
_FAILED: Final = struct.Struct("=ch")
_END: Final = b"\0"
_WHY_BYTES: Final = 4096
_NO_GROUP: Final = -1


class Order(NamedTuple):
    """One program, as a starter needs to know it.

    Attributes:
        uid: its user, and `gid` its group.
        mark: what its processes are known by.
        groups: by which number the starter knows the control groups that it joins; -1 for none.
        join: how many files of these groups come along; 0 where the starter has them.
        numbers: what the program calls the descriptors that come along.
        cwd: its folder.
        stdin: what is opened as its standard input, with its rights; empty for none.
        argv: its words.
        env: its variables.
    """

    uid: int
    gid: int
    mark: int
    groups: int
    join: int
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
    uid, gid, mark, groups, join, numbers, cwd, stdin, argv, env = order
    texts = [cwd, stdin, *argv, *env, *env.values()]
    words = os.fsencode("\0".join(texts))
    if words.count(_END) != len(texts) - 1:
        raise ValueError("a word holds a NUL")
    head = _ORDER.pack(START, uid, gid, mark, groups, join, len(argv), len(env), len(numbers))
    return head + struct.pack(f"={len(numbers)}H", *numbers) + words


def read_order(packet: bytes) -> Order:
    """Read what `order_bytes` wrote."""
    _, uid, gid, mark, groups, join, argv, env, count = _ORDER.unpack_from(packet)
    numbers = struct.unpack_from(f"={count}H", packet, _ORDER.size)
    cwd, stdin, *texts = os.fsdecode(packet[_ORDER.size + 2 * count :]).split("\0")
    values = argv + env
    variables = dict(zip(texts[argv:values], texts[values:], strict=True))
    return Order(uid, gid, mark, groups, join, numbers, cwd, stdin, texts[:argv], variables)


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
    return CANNOT + _cut(why)


def started(pid: int) -> bytes:
    """The program runs."""
    return _STARTED.pack(STARTED, pid)


def failed(why: str, group: int = _NO_GROUP) -> bytes:
    """The program cannot be started; `group` is the place of the one that it could not join, if that is why."""
    return _FAILED.pack(FAILED, group) + _cut(why)


def refused(why: str) -> bytes:
    """The starter could not start it, and a fork of the keeper may."""
    return REFUSED + _cut(why)


def read_started(packet: bytes) -> int:
    """Read what `started` wrote."""
    return int(_STARTED.unpack(packet)[1])


def read_failed(packet: bytes) -> tuple[str, int | None]:
    """Read what `failed` wrote: the reason, and the place of a group that could not be joined."""
    group = int(_FAILED.unpack_from(packet)[1])
    why = packet[_FAILED.size :].decode(errors="replace")
    return why, None if group == _NO_GROUP else group


def read_why(packet: bytes) -> str:
    """Read the reason of `cannot` or `refused`."""
    return packet[1:].decode(errors="replace")


def _cut(why: str) -> bytes:
    return why.encode(errors="replace")[:_WHY_BYTES]
