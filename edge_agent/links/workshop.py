"""The link from an agent to the work on its attempts: folders, environments, files, the archive."""

import asyncio
from collections.abc import Callable, Collection
from typing import Protocol, TypeAlias

from edge_agent.address_requests import Ask
from edge_agent.keeper.client import StartRequest
from edge_agent.secrets.secret_mask import SecretMask
from edge_agent.uploads.collect import Collected
from shoal.kept_folder import KeptFolder
from shoal.model import Artifact
from shoal.names import AttemptRef
from shoal.session.assignment import Assignment
from shoal.session.bundles import BundlesWanted
from shoal.session.uploads import ArtifactParts, UploadGrant

Waiting: TypeAlias = Callable[[str], None]
"""Hears for what work waits: why, and until when; for people."""


class Workbench(Protocol):
    """The work on one attempt; cancelling it leaves nothing behind that a second try would mind.

    Errors are those by which `edge_agent.attempts.shell` tells reasons from each other; `OSError`
    and anything else count for what was being done.
    """

    def prepare(self, assignment: Assignment) -> None:
        """Begin to make ready what is at hand: the folder, and how the program is started; `plan` waits for it."""
        ...

    def ready(self) -> asyncio.Future[StartRequest | None] | None:
        """What the keeper is asked for, once what `prepare` began is done; None where `plan` is needed."""
        ...

    async def lay_out(self, assignment: Assignment, waiting: Waiting) -> None:
        """Lay the bundle out in a fresh folder; what was fetched for the attempt before stays known.

        Raises:
            BundleRefusedError, FetchError, ChecksumError: it cannot be had, or cannot be laid out.
        """
        ...

    async def build(self, assignment: Assignment, progress: Waiting) -> None:
        """Build the environment, or find it built.

        Raises:
            InterpreterMissingError, RecipeError, InstallError, ChecksumError, FetchError: it
                cannot be built.
        """
        ...

    async def fetch(self, assignment: Assignment, waiting: Waiting, ask: Ask) -> None:
        """Fetch the file inputs and check them; `ask` asks the controller for addresses.

        Raises:
            FetchError, ChecksumError: one cannot be had.
        """
        ...

    async def plan(self, assignment: Assignment, progress: Waiting) -> StartRequest:
        """What the keeper is asked for, without a lease.

        What is not prepared, or not known to be, is prepared first: an agent that ended has begun this attempt, or what
        was at hand is so no more.

        Raises:
            ProgramError: the program or its standard input is not there.
            BundleRefusedError, FetchError, InstallError, and those of `build`: it cannot be prepared.
        """
        ...

    def begins(self) -> None:
        """Hear that the keeper is asked for the program now, for the first time."""
        ...

    def left_nothing(self, assignment: Assignment) -> bool:
        """Whether a look shows that a program that has ended left neither files nor words; else `collect` is needed."""
        ...

    async def collect(
        self, assignment: Assignment, *, succeeded: bool, contents: bool = False
    ) -> Collected:
        """Find, measure and hash what is archived after such an end: logs, and what it says.

        With `contents` what is read of small ones is kept.
        """
        ...

    async def store(
        self, artifact: Artifact, grant: UploadGrant, waiting: Waiting, *, salvaged: bool = False
    ) -> Artifact:
        """Store one file for as long as it takes, and return the artifact with its key.

        What is `salvaged` of an attempt that did not succeed lets the others go first.

        Raises:
            GrantRefusedError: the archive answered, and not with success; a new grant may help.
            OSError: the file cannot be read any more.
        """
        ...

    async def store_parts(
        self,
        artifact: Artifact,
        parts: ArtifactParts,
        grant: UploadGrant,
        waiting: Waiting,
        *,
        salvaged: bool = False,
    ) -> None:
        """Store the parts of a file that were granted, for as long as it takes; see `store`."""
        ...

    async def keep(self, mask: SecretMask) -> None:
        """Keep the folder of the attempt for people, without its secrets, for as long as the node keeps such.

        Raises:
            OSError: it cannot be moved.
        """
        ...

    def throw_at_once(self) -> asyncio.Future[bool] | None:
        """Throw the folder away if it is like one that was just made, and say whether; None where `throw` is needed."""
        ...

    async def throw(self) -> None:
        """Throw the folder of the attempt away.

        Raises:
            OSError: it cannot be moved away.
        """
        ...


class Workshop(Protocol):
    """Where a node does the work on its attempts."""

    def bench(self, ref: AttemptRef) -> Workbench:
        """A bench for one life of an attempt; what it remembers goes with it."""
        ...

    def at_hand(self, assignment: Assignment) -> bool:
        """Whether all that an attempt needs is here, so that nothing of its preparation may take long."""
        ...

    def bundles(self) -> tuple[str, ...]:
        """Digests of the bundles that are here already."""
        ...

    def want(self, wanted: BundlesWanted) -> None:
        """Take which bundles are to be here before they are needed, and kept for as long."""
        ...

    async def prefetch(self) -> None:
        """Fetch such bundles until cancelled."""
        ...

    def kept(self) -> tuple[KeptFolder, ...]:
        """The folders that are kept for people."""
        ...

    async def trim(self, *, short: bool) -> None:
        """Let go what is kept no longer; `short` says that the disk needs room."""
        ...

    def holds(self, ref: AttemptRef) -> bool:
        """Whether there is something that only the program of an attempt needs."""
        ...

    async def ended(self, ref: AttemptRef) -> None:
        """Take away what only the program of an attempt needs; it has ended, or does not start."""
        ...

    async def sweep(self, known: Collection[str], running: Collection[str]) -> None:
        """Throw folders of attempts away that are not known any more, and what only programs need that do not run.

        Args:
            known: keeper ids of the attempts that are known.
            running: those of the programs that run.
        """
        ...
