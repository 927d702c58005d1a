"""What the attempts of a node have in common: everything that an effect needs to be performed."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_agent.address_requests import Ask
from edge_agent.attempt_folder import AttemptFolder, keeper_id
from edge_agent.attempts.events import AttemptsEvent
from edge_agent.attempts.waits import Waits
from edge_agent.keeper_link import KeeperLink
from edge_agent.lease import NodeLease
from edge_agent.links.journal import AttemptJournal
from edge_agent.links.logs import AttemptLogs
from edge_agent.links.workshop import Workshop
from edge_agent.secrets.secret_mask import SecretMask
from edge_agent.stream_link import StreamLink
from edge_agent.uploads.small_contents import SmallContents
from shoal.names import AttemptRef
from shoal.session.messages import FromAgent


@dataclass(frozen=True, slots=True)
class AttemptServices:
    """The parts that attempts share, and the two ways out: to the machine and to the controller.

    `attempts` is the folder that holds theirs, `wall` seconds since the epoch. `post` waits for room on its way to the
    machine, and `say` on its way to the controller; `offer` and `hint` hand over nothing where there is none, and say
    so. `ask` asks the controller for addresses. `mask` hides the secrets of an attempt. `spawn` lets a task run until
    the agent ends; an error of it ends the agent. `contents` are those of small artifacts.
    """

    attempts: Path
    journal: AttemptJournal
    keeper: KeeperLink
    streams: StreamLink
    workshop: Workshop
    logs: AttemptLogs
    lease: NodeLease
    wall: Callable[[], float]
    post: Callable[[AttemptsEvent], Awaitable[None]]
    offer: Callable[[AttemptsEvent], bool]
    say: Callable[[FromAgent], Coroutine[Any, Any, None]]
    hint: Callable[[FromAgent], bool]
    ask: Ask
    mask: Callable[[AttemptRef], SecretMask]
    spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Future[None]]
    waits: Waits
    contents: SmallContents

    def folder(self, ref: AttemptRef) -> AttemptFolder:
        """Where an attempt lives."""
        return AttemptFolder(f"{self.attempts}/{keeper_id(ref)}")
