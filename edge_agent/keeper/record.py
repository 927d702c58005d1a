"""What the keeper remembers of one process, and how it crosses the socket."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from types import MappingProxyType, NoneType
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class ProcessRecord:
    """One process that the keeper started: a job's program, or a helper that must outlive the agent.

    Times are seconds since the epoch, for people; deadlines inside the keeper are monotonic.
    `exit_code` is None while it runs or when a signal ended it. `lease_ended` says that it was ended
    because its lease was not renewed, `problem` why records of its FIFOs may be missing, `left` which
    processes of it could not be ended, and why. `made` are the words with which it was started, by
    which its starter knows what it is. `out_of_memory` says that the kernel ended it for want of memory,
    `not_begun` why it was never executed, though the process that was to do so ran. `memory_kills`,
    `refused_processes` and `bounded_memory` are those of `GroupCounts`, once it has ended otherwise than with status 0.
    """

    attempt: str
    pid: int
    helper: bool = False
    running: bool = True
    exit_code: int | None = None
    signal: int | None = None
    timed_out: bool = False
    start_time: float = 0.0
    end_time: float = 0.0
    lease_ended: bool = False
    problem: str = ""
    left: str = ""
    made: str = ""
    out_of_memory: bool = False
    not_begun: str = ""
    memory_kills: int | None = None
    refused_processes: int = 0
    bounded_memory: bool = False

    def to_json(self) -> dict[str, object]:
        """Return the object that travels on the socket: what differs from the defaults, and whether it runs."""
        values = zip(_NAMES, _DEFAULTS, _values(self), strict=True)
        differing = {name: value for name, default, value in values if value != default}
        return {"attempt": self.attempt, "pid": self.pid, "running": self.running, **differing}

    @staticmethod
    def from_json(value: Mapping[str, object]) -> ProcessRecord:
        """Read what `to_json` wrote.

        Raises:
            ValueError: The name or process id is missing, or a field has the wrong type.
        """
        for name in _NEEDED:
            if name not in value:
                raise ValueError(f"a process record lacks the field {name!r}")
        given: dict[str, Any] = {}
        # A keeper that an older agent started says less, and that of a newer one more.
        for name, found in value.items():
            kinds = _KIND_OF.get(name)
            if kinds is None:
                continue
            if not isinstance(found, kinds):
                raise ValueError(  # noqa: TRY004 - of what came, as all that is wrong with it
                    f"a process record has {found!r} for {name}, which is none of {kinds}"
                )
            given[name] = found
        return ProcessRecord(**given)


_KINDS: Final[Mapping[str, tuple[type, ...]]] = MappingProxyType(
    {
        "str": (str,),
        "bool": (bool,),
        "int": (int,),
        "int | None": (int, NoneType),
        "float": (int, float),
    }
)
"""What a field of a record may be in JSON, by its annotation."""
_KIND_OF: Final[Mapping[str, tuple[type, ...]]] = MappingProxyType(
    {one.name: _KINDS[str(one.type)] for one in fields(ProcessRecord)}
)
_NEEDED: Final = tuple(one.name for one in fields(ProcessRecord) if one.default is MISSING)
_WITH_DEFAULT: Final = tuple(
    one for one in fields(ProcessRecord) if one.default is not MISSING and one.name != "running"
)
_NAMES: Final = tuple(one.name for one in _WITH_DEFAULT)
_DEFAULTS: Final[tuple[object, ...]] = tuple(one.default for one in _WITH_DEFAULT)
_values: Final[Callable[[ProcessRecord], tuple[object, ...]]] = operator.attrgetter(*_NAMES)
