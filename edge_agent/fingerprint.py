"""What this machine has: cores, memory, architecture, devices by class."""

import os
import platform
import re
import socket
from pathlib import Path
from typing import Final

import psutil

from edge_agent.cgroup_limits import cgroup_limits
from shoal.model import Capacity

_DEVICE_CLASSES: Final = (("video", "video*"), ("gpu", "nvidia[0-9]*"), ("gpu", "nvhost-gpu"))
"""From the class that a job asks for to the files below /dev that say it is there."""


def capacity(root: Path = Path("/")) -> Capacity:
    """Return what the machine has, as far as this process may use it: a container may have less.

    Args:
        root: the folder that stands for `/`, for devices and control groups.
    """
    devices = root / "dev"
    found = [name for name, pattern in _DEVICE_CLASSES for _ in sorted(devices.glob(pattern))]
    limits = cgroup_limits(root)
    cpus, memory = float(_cores()), int(psutil.virtual_memory().total)
    return Capacity(
        cpus if limits.cpus is None else min(cpus, limits.cpus),
        memory if limits.memory_bytes is None else min(memory, limits.memory_bytes),
        tuple(found),
    )


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
