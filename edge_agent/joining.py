"""How a node joins its cluster: once, with a token; `shoal.joining` has what is said, and why it is safe.

Rule: the key is on the disk before its certificate is asked for, and everything that came is on the disk
before anything is deleted. So a board that loses its power in between asks again with the same key, and gets
the same certificate: a token for one use is enough.
Order: key, id of the token, keyring of gossip, trust, authorities, certificate; what has a certificate has joined.
"""

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge_agent.config import AgentConfig
from edge_agent.node_identity import NodeIdentity
from services.membership.gossip_member import KEYRING_NAME
from services.membership.keyring_file import KeyringFile, KeyringFileError
from services.runtime.address import host_port, joined
from services.runtime.log import fields
from services.runtime.process import StartRefusedError
from shoal.backoff import Backoff
from shoal.credentials import write_private
from shoal.errors import ShoalError
from shoal.identity import Role
from shoal.join_token import JoinToken, JoinTokenError, parse_token
from shoal.joining import Joined, JoiningError, join
from shoal.signing_request import is_key, new_key

LOG = logging.getLogger(__name__)

NEWCOMERS_ABOVE: Final = 2
"""The port of newcomers is so far above that of a controller's API, by default."""
TOKEN_VARIABLE: Final = "SHOAL_TOKEN"  # noqa: S105 - a name
_KEY_FILE: Final = "joining.key"
_TOKEN_FILE: Final = "token.id"  # noqa: S105 - a name
_TRIES_AGAIN: Final = 3
_ASK_SECONDS: Final = 10.0
_BACKOFF: Final = Backoff(0.5, 15.0)
_TOKEN_BYTES_MAX: Final = 4096


@dataclass(frozen=True, slots=True)
class Joining:
    """What a node joins with.

    Attributes:
        config: what the operator set.
        variable: the token of the environment; empty for none.
        chance: draws from [0, 1) for the jitter of waits.
    """

    config: AgentConfig
    variable: str
    chance: Callable[[], float]

    async def run(self, identity: NodeIdentity) -> None:
        """Join, unless the node has joined before; waits for a controller for as long as it takes.

        A node that has joined joins again with another token than it had, as after it was revoked; if that
        does not go well, it is what it was.

        Raises:
            StartRefusedError: there is no usable token, or the controller refuses it.
        """
        if identity.current() is None:
            await self._join(identity)
        elif await asyncio.to_thread(self._is_new, identity.folder):
            try:
                await self._join(identity, tries=_TRIES_AGAIN)
            except StartRefusedError as error:
                LOG.warning("this node does not join again", extra=fields(why=error))

    async def _join(self, identity: NodeIdentity, tries: int = sys.maxsize) -> None:
        token = await asyncio.to_thread(self._token, identity.folder)
        addresses = self._addresses()
        key = await asyncio.to_thread(_key, identity.folder)
        name, failures = self.config.name, 0
        while not isinstance(found := await self._ask(addresses, token, key), Joined):
            failures += 1
            if failures >= tries:
                raise StartRefusedError(f"node {name} cannot join: {found}") from found
            LOG.warning(
                "waiting to join the cluster", extra=fields(node=name, why=found, tries=failures)
            )
            await asyncio.sleep(_BACKOFF.delay_seconds(failures, self.chance()))
        try:
            await asyncio.to_thread(_keep, identity, found, token)
        except (OSError, KeyringFileError) as error:
            raise StartRefusedError(
                f"the identity of node {name} cannot be kept in {identity.folder}: {error}; make room "
                "there and start again: the same token is still good for this node"
            ) from error
        LOG.info(
            "this node has joined, and its token is not needed any more",
            extra=fields(identity=found.credentials.identity.uri),
        )

    def _is_new(self, folder: Path) -> bool:
        """Whether there is a token, and it is not the one that the node has joined with."""
        try:
            return self._token(folder).id != (folder / _TOKEN_FILE).read_text("ascii")
        except FileNotFoundError:
            return True
        except (StartRefusedError, OSError, UnicodeError):
            return False

    async def _ask(
        self, addresses: Sequence[str], token: JoinToken, key: bytes
    ) -> Joined | JoiningError:
        """Ask one controller after another; returns why it has to be tried again.

        Raises:
            StartRefusedError: none of them will ever do it.
        """
        errors: list[JoiningError] = []
        for address in addresses:
            try:
                return await asyncio.to_thread(
                    join,
                    address,
                    token,
                    self.config.name,
                    key=key,
                    role=Role.NODE,
                    timeout_seconds=_ASK_SECONDS,
                )
            except JoiningError as error:
                errors.append(error)
            except ShoalError as error:
                raise StartRefusedError(f"node {self.config.name} cannot join: {error}") from error
        passing = [error for error in errors if error.passing]
        if not passing:
            raise StartRefusedError(f"node {self.config.name} cannot join: {errors[0]}")
        return passing[0]

    def _addresses(self) -> Sequence[str]:
        if self.config.newcomers:
            return [self.config.newcomers]
        found: list[str] = []
        for controller in self.config.controllers:
            host, port = host_port(controller, hostless=True)
            found.append(joined(host or "127.0.0.1", port + NEWCOMERS_ABOVE))
        if not found:
            raise StartRefusedError(
                f"node {self.config.name} has not joined a cluster yet: name its controller with "
                "--controller HOST:PORT (or where it takes newcomers, with --newcomers); --join is enough "
                "once it has"
            )
        return found

    def _token(self, folder: Path) -> JoinToken:
        """Read the token; a file comes first.

        Raises:
            StartRefusedError: there is none, or it is none.
        """
        path, where = self.config.token_file, TOKEN_VARIABLE
        word = self.variable
        if path is not None:
            where = str(path)
            try:
                with path.open("rb") as file:
                    if os.fstat(file.fileno()).st_mode & 0o077:
                        LOG.warning(
                            "others may read the join token; chmod 600 keeps them out",
                            extra=fields(path=path),
                        )
                    word = file.read(_TOKEN_BYTES_MAX).decode("utf-8-sig", "replace")
            except OSError as error:
                raise StartRefusedError(
                    f"the join token cannot be read from {path}: {error.strerror}; this node has no identity "
                    f"in {folder} yet, so it needs one"
                ) from error
        if not word.strip():
            raise StartRefusedError(
                f"node {self.config.name} has no identity in {folder} yet: let an operator make a join token "
                f"(shoal token create --role node), and give it with --token-file or {TOKEN_VARIABLE}; a "
                "controller with --insecure wants agents with --insecure"
            )
        try:
            return parse_token(word)
        except JoinTokenError as error:
            raise StartRefusedError(f"{where}: {error}") from error


def _key(folder: Path) -> bytes:
    """Return the key to join with; one that an earlier try has left is taken again.

    Raises:
        StartRefusedError: it cannot be kept.
    """
    path = folder / _KEY_FILE
    try:
        with contextlib.suppress(FileNotFoundError):
            if is_key(known := path.read_bytes()):
                return known
            LOG.warning(
                "a key to join with is broken, and another one made", extra=fields(path=path)
            )
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        key = new_key()
        write_private(path, key)
    except OSError as error:
        raise StartRefusedError(
            f"the key of this node cannot be kept in {path}: {error.strerror}; make room there"
        ) from error
    return key


def _keep(identity: NodeIdentity, found: Joined, token: JoinToken) -> None:
    write_private(identity.folder / _TOKEN_FILE, token.id.encode())
    if found.trust.gossip_keys:
        KeyringFile(identity.folder / KEYRING_NAME).write(found.trust.gossip_keys)
    identity.join(found.credentials, found.trust)
    (identity.folder / _KEY_FILE).unlink(missing_ok=True)
