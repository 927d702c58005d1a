"""Read the agent's variables and memory.

Refused at: user; it is another user's.
"""

from collections.abc import Mapping
from pathlib import Path


def attack(world: Mapping[str, str]) -> str:
    agent = Path("/proc", world["agent_pid"])
    found = (agent / "environ").read_bytes()
    with (agent / "mem").open("rb", buffering=0):
        return f"{len(found)} bytes of variables, and its memory"
