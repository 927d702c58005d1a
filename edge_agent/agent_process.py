"""What a process gives the agent that runs in it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random

from edge_agent.sandbox.job_users import REGISTRY


@dataclass(frozen=True, slots=True)
class AgentProcess:
    """Variables, version, programs, clocks and chance.

    `python` is the agent's own interpreter, outside of any virtual environment. `boot_id` changes
    whenever the machine starts; empty where that is not known. `clock` is monotonic and the one that
    leases are on, `wall` since the epoch, both in seconds; `token` draws a short random word. `job_registry`
    is a folder that all agents share that may give a job the same user.
    """

    environ: Mapping[str, str]
    version: str
    python: Path
    uv: Path
    boot_id: str
    clock: Callable[[], float]
    wall: Callable[[], float]
    rng: Random
    token: Callable[[], str]
    job_registry: Path = REGISTRY
