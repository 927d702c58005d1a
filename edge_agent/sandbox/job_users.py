"""Which user an attempt runs as: one that no other attempt of the machine has.

**Rule.** A user is taken by making a file of its number in a registry below `/run`, which all agents of a
machine share: making it fails where it is there, so two attempts never get the same. It is given back once
nothing of the attempt is left where a job could reach it.

**Why not in the journal.** The folder of an attempt is given to its user, and the agent alone can change
that: the owner of the folder says which one the attempt has, for as long as there is anything of it. The registry goes
with the machine's uptime, as processes do. So an agent that starts takes over what its folders say, and lets go
of what it had taken for attempts that are gone.

**Why not the lowest.** What an attempt left in places that all may write to is the next one's that gets its number.
It is removed (`user_leavings`) from the usual ones alone. So numbers go round, from one that is drawn at the start.

Example: two agents of one machine draw 200000 both; the second finds the file, and takes 200001.
"""

import contextlib
import logging
import os
import stat
import threading
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Final

from edge_agent.sandbox.user_leavings import remove_left_by
from edge_agent.sandbox.user_processes import end_processes_of, processes_of
from edge_agent.sandbox.user_range import UserRange
from edge_agent.tree import children
from services.runtime.log import fields

LOG = logging.getLogger(__name__)

REGISTRY: Final = Path("/run/shoal/job-users")
_ROOTS: Final = "shoal-root"
_PRIVATE: Final = 0o700
_OTHERS_WRITE: Final = 0o022
_BUSY_MAX: Final = 100


def registry_here(registry: Path = REGISTRY) -> Path:
    """Return the registry for this process: root has another one where the folder is a service's own.

    systemd gives `/run/shoal` to the user of the unit, and root does not write to what another user may replace. An
    agent of root beside that of the unit does not see its entries then: a user with a process is still not taken.
    """
    try:
        owner = registry.parent.lstat().st_uid
    except OSError:
        return registry
    if os.geteuid() == 0 and owner != 0:
        return registry.parent.with_name(_ROOTS) / registry.name
    return registry


class NoUserError(OSError):
    """No user can be had for an attempt; the message says why, and what helps."""


class JobUsers:
    """The users of the attempts of one agent; `open` it. It touches files, so call it on threads, several at once.

    Args:
        users: which ones there are.
        registry: folder that says which of them are taken; made if it is missing.
        state: the agent's state folder, by which its own entries are known.
        chance: draws from [0, 1).
    """

    def __init__(
        self, users: UserRange, registry: Path, state: Path, chance: Callable[[], float]
    ) -> None:
        self.users = users
        self._registry = registry
        self._state = str(state.absolute())
        self._next = int(chance() * users.count)
        self._taken: dict[str, int] = {}
        self._lock = threading.Lock()

    def open(self, attempts: Path) -> None:
        """Take over the users of the attempts in this folder, and let go of the others that were ours.

        Raises:
            NoUserError: the registry cannot be used.
        """
        self._make_registry()
        self._clear(attempts)
        for folder in children(attempts):
            with contextlib.suppress(OSError):
                owner = (folder / "work").lstat().st_uid
                if owner in self.users:
                    # Where it is another's by now, the machine has started since, and nothing of this one runs.
                    self._claim(owner, folder.name)
                    self._taken[folder.name] = owner

    @property
    def taken(self) -> Collection[str]:
        """The attempts that have a user."""
        return self._taken.keys()

    def take(self, attempt: str) -> int:
        """Return the user of an attempt, which is taken if it has none.

        Raises:
            NoUserError: all are taken, or the registry cannot be written.
        """
        with self._lock:
            return self._take(attempt)

    def _take(self, attempt: str) -> int:
        known = self._taken.get(attempt)
        if known is not None:
            return known
        busy = 0
        for uid in self._in_turn():
            try:
                if not self._claim(uid, attempt):
                    continue
            except OSError as error:
                raise self._unusable(error) from error
            if not processes_of(uid):
                self._taken[attempt] = uid
                return uid
            # The user of another program, or one whose last attempt could not be ended.
            LOG.warning("a user of jobs has processes already", extra=fields(uid=uid))
            self._release(uid)
            busy += 1
            if busy == _BUSY_MAX:
                break
        raise NoUserError(
            f"none of the users {self.users} is free for a job ({busy} of them have processes already): "
            f"see what is in {self._registry}, or give the agent another range (--job-users)"
        )

    def free(self, attempt: str) -> None:
        """End what still runs as the user of an attempt, and let others have the user."""
        with self._lock:
            uid = self._taken.pop(attempt, None)
            if uid is None:
                return
            left = end_processes_of(uid)
            if left:
                said = fields(uid=uid, left=left)
                LOG.warning("processes of an attempt cannot be ended", extra=said)
                return
        # What is left may be much, and its entry keeps the user from others meanwhile.
        if stays := remove_left_by(uid):
            LOG.warning("files of an attempt cannot be removed", extra=fields(uid=uid, left=stays))
        self._release(uid)

    def _release(self, uid: int) -> None:
        with contextlib.suppress(OSError):
            (self._registry / str(uid)).unlink()

    def _in_turn(self) -> Iterator[int]:
        for _ in range(self.users.count):
            uid = self.users.first + self._next
            self._next = (self._next + 1) % self.users.count
            yield uid

    def _make_registry(self) -> None:
        try:
            for folder in (self._registry.parent, self._registry):
                folder.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
                _check_owner(folder)
            if not os.access(self._registry, os.W_OK | os.X_OK, effective_ids=True):
                raise PermissionError(0, "this user may not write there")
        except OSError as error:
            raise self._unusable(error) from error

    def _unusable(self, error: OSError) -> NoUserError:
        return NoUserError(
            f"the registry of users {self._registry} cannot be used: {error.strerror}; make it a folder "
            "in which the agent may write (systemd: RuntimeDirectory=shoal)"
        )

    def _clear(self, attempts: Path) -> None:
        """Remove entries of attempts that are gone: ours, and those of agents whose folder is gone."""
        for path in children(self._registry):
            try:
                state, attempt = path.read_text("utf-8").splitlines()
            except (OSError, ValueError):
                continue
            ours = state == self._state
            folder = attempts / attempt if ours else Path(state)
            if not os.path.lexists(folder) and not (
                path.name.isdecimal() and processes_of(int(path.name))
            ):
                with contextlib.suppress(OSError):
                    path.unlink()
            elif ours and path.name.isdecimal() and int(path.name) in self.users:
                self._taken[attempt] = int(path.name)

    def _claim(self, uid: int, attempt: str) -> bool:
        """Make the entry of a user; False where there is one."""
        entry = self._registry / str(uid)
        # With its words from the first moment on: one that is empty would be taken for ever.
        draft = self._registry / f".{uid}.{os.getpid()}"
        draft.write_text(f"{self._state}\n{attempt}\n", "utf-8")
        try:
            os.link(draft, entry)
        except FileExistsError:
            return False
        finally:
            draft.unlink(missing_ok=True)
        return True


def _check_owner(folder: Path) -> None:
    """Look that a folder is ours, since others may be able to make it, too.

    One in which all may write is as good where it is sticky, as /tmp and an image's /run/shoal are: there a user
    renames and removes nothing that is another's.

    Raises:
        PermissionError: another user made it, or can write there.
    """
    status = folder.lstat()
    open_to_others = status.st_mode & _OTHERS_WRITE and not status.st_mode & stat.S_ISVTX
    if not stat.S_ISDIR(status.st_mode) or status.st_uid not in {0, os.geteuid()} or open_to_others:
        raise PermissionError(0, f"{folder} is another user's: remove it")
