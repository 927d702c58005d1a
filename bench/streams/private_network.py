"""A network of this process and its children alone, in which links can be cut (as root)."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess

_CLONE_NEWNET = 0x40000000  # sched.h
_TABLE = "shoal_chaos"


class NoPrivateNetworkError(Exception):
    """This process may not have a network of its own; the message says what is missing."""


def enter() -> None:
    """Leave the machine's network for an own one with nothing but loopback (unshare(2)).

    Raises:
        NoPrivateNetworkError: It is not root, or a program is missing.
    """
    missing = [name for name in ("ip", "nft") if shutil.which(name) is None]
    if missing:
        raise NoPrivateNetworkError(f"not installed: {', '.join(missing)}")
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET):
        raise NoPrivateNetworkError(f"unshare: {os.strerror(ctypes.get_errno())}")
    _run("ip", "link", "set", "lo", "up")


def drop(port: int) -> None:
    """Lose every packet from and to a TCP port, as a cable does that is pulled."""
    _block(port, "drop")


def cut(port: int) -> None:
    """Reset every connection from and to a TCP port as soon as a packet passes."""
    _block(port, "reject with tcp reset")


def heal() -> None:
    """Let everything pass again."""
    _run("nft", "delete", "table", "inet", _TABLE)


def _block(port: int, how: str) -> None:
    _run(
        "nft",
        "-f",
        "-",
        text=f"table inet {_TABLE} {{\n"
        "  chain input {\n"
        "    type filter hook input priority 0; policy accept;\n"
        f"    tcp dport {port} {how}\n"
        f"    tcp sport {port} {how}\n"
        "  }\n"
        "}\n",
    )


def _run(*words: str, text: str = "") -> None:
    done = subprocess.run(words, input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NoPrivateNetworkError(f"{' '.join(words)}: {done.stderr.strip()}")
