"""From what a program needs of its node to the part of its plan that lets it see no more.

Rules:

1. **Level `none` narrows nothing.**
2. **Level `user`** hides nothing by itself: rights of files do that. Where the kernel has Landlock, the same folders
   are hidden as by bubblewrap, except those for temporary files, and only what the program may write can be written.
3. **Level `confined`** is bubblewrap, around a process that is scoped by Landlock already (`landlock`, rule 3).
4. **What is the same for all attempts is found out once**: which names lie beside hidden folders, until one of these
   folders changes (inode(7), mtime), and where the links on the way to a folder lead, until `forget`. What comes into
   such a folder within the same hundredth of a second as the look may be hidden from jobs until then; nothing that is
   to be hidden is ever shown by it.
5. **root is never confined as root**: its files are its own in each namespace, those below `/proc/sys`, too. Such a
   plan is refused, and a node where root cannot give its jobs users of their own has no level `confined`.
"""

import base64
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Self

from edge_agent.sandbox import bubblewrap, landlock, seccomp
from edge_agent.sandbox.plan import FilesRule, SandboxPlan
from shoal.sandbox import SandboxLevel, SandboxNetwork

SECCOMP: Final = "seccomp"
LANDLOCK: Final = "landlock"
"""What `NodeSandbox.filters` calls them."""

_READ: Final = ("/run/udev",)
"""What says which device is which: programs that look for cameras read it."""
_WRITTEN: Final = ("/dev", "/proc", "/sys", *bubblewrap.SCRATCH)
"""What every program of level `user` may write below, as far as rights of files let it; `/sys` has pins."""


_PLACES_MAX: Final = 512
_DOTS: Final = frozenset({"", ".", ".."})
_SHOWN: Final = ("/bin", "/dev", "/lib", "/proc", "/sbin", "/sys", "/usr")
"""What is never hidden: no program runs without. A service's user may have its home there."""


@dataclass(frozen=True, slots=True)
class Needs:
    """What one program needs of its node. Paths are absolute and exist.

    Attributes:
        folder: where it begins.
        reads: what it reads, wherever that is: environment, interpreter, the SDK's copy, FIFOs' folder, secrets.
        writes: what it writes: its folder, its home, its folder for temporary files.
        devices: device files that it asked for.
        network: which network it has.
    """

    folder: str
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    network: SandboxNetwork = SandboxNetwork.NODE


class NarrowingError(Exception):
    """What is asked for cannot be had as it is asked for; the message says why."""


class Narrowing:
    """What one node uses to narrow what its programs see; looks at the node when it is made.

    Args:
        hidden: folders that no program sees beside `bubblewrap.HIDDEN`: the agent's state and home.
        filters: those of SECCOMP and LANDLOCK that were found to work.
        machine: `platform.machine()`.
        wrapper: path of bubblewrap; empty where there is none.
    """

    def __init__(
        self, hidden: Iterable[str], filters: Iterable[str], machine: str, wrapper: str
    ) -> None:
        self._hidden = tuple(sorted(_folders((*bubblewrap.HIDDEN, *hidden))))
        self._wrapper = wrapper
        known = landlock.abi() if LANDLOCK in set(filters) else 0
        self._files = known >= landlock.FILES_ABI
        self._scoped = known >= landlock.SCOPES_ABI
        calls = seccomp.program(machine) if SECCOMP in set(filters) else b""
        self._calls = base64.b64encode(calls).decode()
        self._reads = tuple(path for path in (*_READ, self._resolver()) if Path(path).exists())
        written = _real(_WRITTEN)
        # What is allowed as a whole hides nothing below it.
        self._hidden_files = [
            path
            for path in self._hidden
            if not any(Path(path).is_relative_to(folder) for folder in written)
        ]
        self._written = tuple(FilesRule(path, write=True) for path in written)
        self._beside = _NONE_BESIDE
        self._places: dict[str, str] = {}
        self._seen: dict[tuple[tuple[str, ...], tuple[str, ...]], tuple[FilesRule, ...]] = {}

    def plan(self, plan: SandboxPlan, level: SandboxLevel, needs: Needs) -> SandboxPlan:
        """Return `plan` with what narrows it to `needs` at a level.

        Raises:
            NarrowingError: there is no bubblewrap, root would be confined as itself, or the network is asked for to be
                none below level `confined`.
        """
        if needs.network is SandboxNetwork.NONE and level is not SandboxLevel.CONFINED:
            raise NarrowingError(
                f"a program without a network needs the level confined, and this one has {level.value}"
            )
        match level:
            case SandboxLevel.NONE:
                return plan
            case SandboxLevel.USER:
                return replace(
                    plan,
                    no_new_privileges=True,
                    files=self._rules(needs) if self._files else (),
                    own=self._written_at(needs.writes) if self._files else (),
                    scoped=self._scoped,
                    seccomp=self._calls,
                )
            case SandboxLevel.CONFINED:
                return replace(
                    plan,
                    no_new_privileges=True,
                    scoped=self._scoped,
                    seccomp=self._calls,
                    wrap=self.words(plan.uid, needs),
                )

    def _resolver(self) -> str:
        """What says how names are found: a folder, since the file in it is replaced now and then."""
        file = Path(os.path.realpath("/etc/resolv.conf"))
        return str(file if str(file.parent) in self._hidden else file.parent)

    def forget(self) -> None:
        """Find out anew what was found out for all attempts."""
        self._beside = _NONE_BESIDE
        self._places = {}
        self._seen = {}

    def _rules(self, needs: Needs) -> tuple[FilesRule, ...]:
        """The rules that are the same for all attempts that read the same: one value, until something changes."""
        if not self._beside.holds():
            self._beside = _Beside.of(self._hidden_files)
            self._seen.clear()
        key = (needs.reads, needs.devices)
        rules = self._seen.get(key)
        if rules is None:
            places = dict.fromkeys(map(self.place, (*self._reads, *needs.reads)))
            if len(self._seen) >= _PLACES_MAX:
                self._seen.clear()
            rules = self._seen[key] = (
                *self._beside.rules,
                *map(FilesRule, places),
                *self._written,
                *self._written_at(needs.devices),
            )
        return rules

    def _written_at(self, paths: Iterable[str]) -> tuple[FilesRule, ...]:
        return tuple(
            [FilesRule(path, write=True) for path in dict.fromkeys(map(self.place, paths))]
        )

    def place(self, path: str) -> str:
        """Say where an absolute path leads; where its folder leads is found out once."""
        above, _, name = path.rpartition("/")
        if not above or name in _DOTS:
            return os.path.realpath(path)
        place = self._places.get(above)
        if place is None:
            place = self.place(above)
            if len(self._places) >= _PLACES_MAX:
                self._places.clear()
            self._places[above] = place
        found = f"{'' if place == '/' else place}/{name}"
        return os.path.realpath(found) if os.path.islink(found) else found  # noqa: PTH114 - often

    def words(self, uid: int, needs: Needs) -> tuple[str, ...]:
        """Return the words of bubblewrap before a program that runs as `uid`.

        Raises:
            NarrowingError: there is no bubblewrap, or root would be confined as itself.
        """
        if not self._wrapper:
            raise NarrowingError(
                "there is no bubblewrap on this node: install the package bubblewrap"
            )
        if uid <= 0 and os.geteuid() == 0:
            raise NarrowingError(
                "root cannot be confined as root, and this plan has no user of its own"
            )
        return bubblewrap.words(
            bubblewrap.Confinement(
                program=self._wrapper,
                folder=os.path.realpath(needs.folder),
                hidden=self._hidden,
                visible=_real((*self._reads, *needs.reads)),
                writable=_real(needs.writes),
                devices=needs.devices,
                network=needs.network,
                filtered=bool(self._calls),
            )
        )


@dataclass(frozen=True, slots=True)
class _Beside:
    """What lies beside hidden folders and the folders above them, and when each of these folders had changed last."""

    rules: tuple[FilesRule, ...]
    changed: Mapping[str, tuple[int, int, int]]

    @classmethod
    def of(cls, hidden: Iterable[str]) -> Self:
        """Look."""
        changed: dict[str, tuple[int, int, int]] = {}

        def names(folder: str) -> list[str]:
            changed[folder] = _change(folder)
            return _names(folder)

        return cls(landlock.all_but(hidden, (), (), names), changed)

    def holds(self) -> bool:
        """Say whether it is still so."""
        return bool(self.changed) and all(
            _change(folder) == then for folder, then in self.changed.items()
        )


_NONE_BESIDE: Final = _Beside((), {})


def _change(folder: str) -> tuple[int, int, int]:
    try:
        status = os.stat(folder)  # noqa: PTH116 - often
    except OSError:
        return (0, 0, 0)
    return (status.st_dev, status.st_ino, status.st_mtime_ns)


def _folders(paths: Iterable[str]) -> set[str]:
    """Those that are there and can be hidden: a home may be unset, `/` or where programs are."""
    real = {
        os.path.realpath(path) for path in paths if Path(path).is_absolute() and Path(path).is_dir()
    }
    return {
        path
        for path in real - {"/"}
        if not any(Path(path).is_relative_to(shown) for shown in _SHOWN)
    }


def _real(paths: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(os.path.realpath(path) for path in paths))


def _names(folder: str) -> list[str]:
    try:
        return [entry.name for entry in Path(folder).iterdir()]
    except OSError:
        return []
