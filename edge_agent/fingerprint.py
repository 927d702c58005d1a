"""What this machine has: cores, memory, architecture, devices by class."""

import os
import platform
import re
import socket
from pathlib import Path
from typing import Final

import psutil

from shoal.model import Capacity

_DEVICE_CLASSES: Final = (("video", "video*"), ("gpu", "nvidia[0-9]*"), ("gpu", "nvhost-gpu"))
"""From the class that a job asks for to the files below /dev that say it is there."""


def capacity(devices: Path = Path("/dev")) -> Capacity:
    """Return what the machine has, as far as this process may use it."""
    found = [name for name, pattern in _DEVICE_CLASSES for _ in sorted(devices.glob(pattern))]
    return Capacity(float(_cores()), int(psutil.virtual_memory().total), tuple(found))


def architecture() -> str:
    """Return the machine architecture, such as `aarch64`."""
    return platform.machine()


def default_name() -> str:
    """Return an id made of the machine's own name."""
    name = re.sub(r"[^a-z0-9-]+", "-", socket.gethostname().lower().partition(".")[0]).strip("-")
    return (name if name[:1].isalpha() else f"node-{name}".rstrip("-"))[:63]


def boot_id(path: Path = Path("/proc/sys/kernel/random/boot_id")) -> str:
    """Return what changes whenever the machine starts; empty where the system does not say."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _cores() -> int:
    return len(os.sched_getaffinity(0)) or 1
