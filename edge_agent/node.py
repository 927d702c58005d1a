"""What the attempts of a node have in common: everything that an effect needs to be performed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from edge_agent.assignment import FromAgent
from edge_agent.attempt_folder import AttemptFolder, keeper_id
from edge_agent.content_cache import ContentCache
from edge_agent.environments.cache import EnvironmentCache
from edge_agent.file_inputs import FileInputs
from edge_agent.journal import Journal
from edge_agent.keeper_link import KeeperLink
from edge_agent.lease import NodeLease
from edge_agent.logs import LogShipper
from edge_agent.long_work import LongWork
from edge_agent.sdk_copy import SdkCopy
from edge_agent.stream_link import StreamLink
from edge_agent.trash import Trash
from edge_agent.uploads.uploader import Uploader
from edge_agent.worker import WorkerEvent
from shoal.names import AttemptRef


@dataclass(frozen=True, slots=True)
class Node:
    """The parts that attempts share, and the two ways out: to the machine and to the controller.

    `environ` the agent's own variables, `wall` seconds
    since the epoch. `say` waits for room on its way to the controller, `hint` drops what finds none.
    """

    attempts: Path
    sdk: SdkCopy
    environ: Mapping[str, str]
    journal: Journal
    keeper: KeeperLink
    streams: StreamLink
    bundles: ContentCache
    inputs: FileInputs
    environments: EnvironmentCache
    uploader: Uploader
    logs: LogShipper
    work: LongWork
    trash: Trash
    lease: NodeLease
    wall: Callable[[], float]
    post: Callable[[WorkerEvent], Awaitable[None]]
    say: Callable[[FromAgent], Awaitable[None]]
    hint: Callable[[FromAgent], bool]

    def folder(self, ref: AttemptRef) -> AttemptFolder:
        """Where an attempt lives."""
        return AttemptFolder(self.attempts / keeper_id(ref))
