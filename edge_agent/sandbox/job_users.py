"""Which user an attempt runs as: one that no other attempt of the machine has.

**Rule.** A user is taken by making a file of its number in a registry below `/run`, which all agents of a
machine share: making it fails where it is there, so two attempts never get the same. It is given back once
nothing of the attempt is left where a job could reach it.

**Many at a time.** Files are made for attempts to come, and what ended attempts left is looked for by one walk for all
of them: when, and for which, `edge_agent.sandbox.user_pool` says. So an attempt takes a user, and lets it go, without a
file and without a look at the processes of the machine.

**Why not in the journal.** The folder of an attempt is given to its user, and the agent alone can change
that: the owner of the folder says which one the attempt has, for as long as there is anything of it. The registry goes
with the machine's uptime, as processes do. So an agent that starts takes over what its folders say, looks for what
the others left that it had, and lets go of them.

**Why not the lowest.** What an attempt left in places that all may write to is the next one's that gets its number.
It is removed (`user_leavings`) from the usual ones alone. So numbers go round, from one that is drawn at the start.

Example: two agents of one machine draw 200000 both; the second finds the file, and takes 200001.
"""

import contextlib
import logging
import os
import stat
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Final

from edge_agent.sandbox.user_leavings import UserLeavings
from edge_agent.sandbox.user_pool import UserPool
from edge_agent.sandbox.user_processes import end_processes_of_users, processes_of_users
from edge_agent.sandbox.user_range import UserRange
from edge_agent.tree import children
from services.runtime.log import fields

LOG = logging.getLogger(__name__)

REGISTRY: Final = Path("/run/shoal/job-users")
_ROOTS: Final = "shoal-root"
_PRIVATE: Final = 0o700
_OTHERS_WRITE: Final = 0o022
_BUSY_MAX: Final = 100
_POOLED: Final = "-"
"""In an entry's second line, where agents wrote the name of an attempt before."""


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
        clock: seconds on a clock that only grows.
        leavings: removes what they left.
    """

    def __init__(
        self,
        users: UserRange,
        registry: Path,
        state: Path,
        chance: Callable[[], float],
        clock: Callable[[], float],
        leavings: UserLeavings,
    ) -> None:
        self.users = users
        self.leavings = leavings
        self._registry = registry
        self._state = str(state.absolute())
        self._next = int(chance() * users.count)
        self._clock = clock
        self._pool = UserPool(users.count)
        self._lock = threading.Lock()

    def open(self, attempts: Path) -> None:
        """Take over the users of the attempts in this folder, and let go of the others that were ours.

        Raises:
            NoUserError: the registry cannot be used.
            OSError: the processes of the machine cannot be looked at.
        """
        self._make_registry()
        kept: dict[int, str] = {}
        for folder in children(attempts):
            with contextlib.suppress(OSError):
                owner = (folder / "work").lstat().st_uid
                if owner in self.users:
                    kept[owner] = folder.name
        with self._lock:
            self._take_over(kept)
            # Where one is another's by now, the machine has started since, and nothing of this one runs.
            if kept:
                self._claim(kept)
            for uid, attempt in kept.items():
                self._pool.adopt(attempt, uid)
        self.clean()

    @property
    def taken(self) -> Collection[str]:
        """The attempts that have a user."""
        return self._pool.taken.keys()

    def take(self, attempt: str) -> int:
        """Return the user of an attempt, which is taken if it has none.

        Raises:
            NoUserError: all are taken, or the registry cannot be written.
        """
        with self._lock:
            uid = self._pool.take(attempt, self._clock())
            if uid is not None:
                return uid
            busy = self._fill()
            uid = self._pool.take(attempt, self._clock())
        # Free as soon as what they left is looked for.
        if uid is None and self._pool.ended:
            self.clean()
            with self._lock:
                busy = self._fill()
                uid = self._pool.take(attempt, self._clock())
        if uid is None:
            raise NoUserError(
                f"none of the users {self.users} is free for a job ({busy} of them have processes already): "
                f"see what is in {self._registry}, or give the agent another range (--job-users)"
            )
        return uid

    def reserve(self) -> int:
        """Keep a user for an attempt to come; -1 where none can be spared."""
        with self._lock:
            uid = self._pool.reserve()
        return -1 if uid is None else uid

    def grant(self, attempt: str, uid: int) -> None:
        """Give an attempt the user that was reserved for it."""
        with self._lock:
            self._pool.grant(attempt, uid, self._clock())

    def restore(self, uid: int) -> None:
        """Let any attempt have a user that was reserved, and that nothing ran as."""
        with self._lock:
            self._pool.restore(uid)

    def free(self, attempt: str) -> None:
        """Let others have the user of an attempt once what it left is looked for; what of it runs is ended then."""
        with self._lock:
            self._pool.end(attempt)
            crowded = self._pool.crowded
        if crowded:
            self.clean()

    def due(self) -> bool:
        """Whether `clean` has something to do by now."""
        with self._lock:
            return self._pool.due(self._clock())

    def clean(self) -> None:
        """Look for what users that have ended left, let others have them, and claim some for attempts to come.

        Raises:
            OSError: the processes of the machine cannot be looked at. What was to be done is done the next time.
        """
        with self._lock:
            now = self._clock()
            short = self._pool.short(now)
            surplus = self._pool.give_back(self._pool.surplus(now))
            begun = self._pool.begin(now)
        try:
            left = end_processes_of_users(begun)
            clean = begun - left.keys()
            stays = self.leavings.remove(clean) if clean else []
        except BaseException:
            with self._lock:
                self._pool.failed(begun)
            raise
        if left:
            LOG.warning("processes of attempts cannot be ended", extra=fields(left=dict(left)))
        if stays:
            LOG.warning("files of attempts cannot be removed", extra=fields(left=stays))
        for uid in (*clean, *surplus):
            self._release(uid)
        ahead: list[int] = []
        if short:
            with contextlib.suppress(OSError):  # which an attempt that needs one is told
                ahead, _ = self._claim_idle(short)
        with self._lock:
            self._pool.stuck(left.keys())
            self._pool.add(ahead)

    def _fill(self) -> int:
        """Claim users for an attempt that waits for one; return how many have processes already.

        Raises:
            NoUserError: the registry cannot be written.
        """
        busy = 0
        while True:
            try:
                idle, claimed = self._claim_idle(self._pool.block)
            except OSError as error:
                raise self._unusable(error) from error
            self._pool.add(idle)
            busy += claimed - len(idle)
            if idle or not claimed or busy >= min(_BUSY_MAX, self.users.count):
                return busy

    def _claim_idle(self, many: int) -> tuple[list[int], int]:
        """Claim so many users; return those of them that have no processes, and how many were had in all.

        Raises:
            OSError: the registry cannot be written, or the processes cannot be looked at.
        """
        claimed = self._claim(self._in_turn(), many)
        strangers: Collection[int] = claimed
        try:
            strangers = processes_of_users(claimed)
        finally:
            for uid in strangers:
                self._release(uid)
        for uid in strangers:
            # The user of another program, or one whose last attempt could not be ended.
            LOG.warning("a user of jobs has processes already", extra=fields(uid=uid))
        return [uid for uid in claimed if uid not in strangers], len(claimed)

    def _release(self, uid: int) -> None:
        with contextlib.suppress(OSError):
            os.unlink(f"{self._registry}/{uid}")  # noqa: PTH108 - often

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

    def _take_over(self, kept: Collection[int]) -> None:
        """Look through the entries: ours of attempts that are gone, and those of agents whose folder is gone."""
        ours: list[int] = []
        others: list[int] = []
        for path in children(self._registry):
            try:
                state = path.read_text("utf-8").splitlines()[0]
                uid = int(path.name)
            except (OSError, ValueError, IndexError):
                continue
            if state == self._state and uid in self.users and uid not in kept:
                ours.append(uid)
            elif state != self._state and not os.path.lexists(state):
                others.append(uid)
        busy = processes_of_users((*ours, *others))
        for uid in others:
            if uid not in busy:
                self._release(uid)
        for uid in ours:
            if uid in busy:
                # Not ended: this may be an attempt whose folder a person removed.
                self._pool.adopt(f"user {uid}", uid)
            else:
                self._pool.end_user(uid)

    def _claim(self, uids: Iterable[int], most: int | None = None) -> list[int]:
        """Make the entries of users; return those that had none.

        Raises:
            OSError: the registry cannot be written. Those that had been claimed are let go again.
        """
        claimed: list[int] = []
        # With its words from the first moment on: one that is empty would be taken for ever.
        draft = self._registry / f".{os.getpid()}.{threading.get_ident()}"
        try:
            draft.write_text(f"{self._state}\n{_POOLED}\n", "utf-8")
            source, folder = str(draft), str(self._registry)
            for uid in uids:
                with contextlib.suppress(FileExistsError):
                    os.link(source, f"{folder}/{uid}")
                    claimed.append(uid)
                if len(claimed) == most:
                    break
        except OSError:
            for uid in claimed:
                self._release(uid)
            raise
        finally:
            with contextlib.suppress(OSError):
                draft.unlink()
        return claimed


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
