"""What an operator may set of the leader and of what it shows."""

from __future__ import annotations

from dataclasses import dataclass

from control.core.machine_config import MachineConfig


@dataclass(frozen=True, slots=True)
class PlaneConfig(MachineConfig):
    """What an operator may set, besides what `MachineConfig` has.

    Attributes:
        calls_max: how many requests may wait for the next commit.
        batch_max: how many of them one commit takes.
        changes_kept: how many changes a watcher may resume after.
        watch_pending_max: how many changes may wait for a watcher before it is cut off.
        events_in_memory: how many events are kept for those that watch them and are not far behind.
        quiet_seconds: after how long without an event one that watches is told how far it has come.
        store_retry_seconds: how long a failed store is left alone.
        queue_page: how many pipelines that wait are read from the store at once.
    """

    calls_max: int = 4096
    batch_max: int = 1024
    changes_kept: int = 10_000
    watch_pending_max: int = 32_768
    events_in_memory: int = 10_000
    quiet_seconds: float = 15.0
    store_retry_seconds: float = 1.0
    queue_page: int = 1000
