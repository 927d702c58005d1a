"""What an agent may ask of the keeper: one JSON object a packet, or a list of them (protocol 3), read strictly."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar, cast

from edge_agent.keeper.launch import Launch, Port
from edge_agent.sandbox.plan import NO_PLAN, SandboxPlan
from edge_agent.sandbox.plan_json import plan_from_json

MAX_PACKET_BYTES: Final = 128 * 1024
"""Longest packet in either direction; a sequenced-packet socket carries it whole."""
MAX_REQUEST_BYTES: Final = 4 * 1024 * 1024
"""Longest request: what is longer than a packet comes as a file, whose descriptor a packet brings (protocol 2)."""
IN_FILE: Final = b"file"
"""Such a packet."""

T = TypeVar("T")
_NUMBERS: Final = (int, float)
_SECONDS_MAX: Final = 1e9


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request; its answer carries the same `id`."""

    id: int


@dataclass(frozen=True, slots=True)
class Start(_Asked):
    """Start a job's program, or a helper process that must outlive the agent."""

    program: Launch
    timeout_seconds: float
    grace_seconds: float
    lease_until: float
    lease_grace_seconds: float
    helper: bool
    made: str = ""


@dataclass(frozen=True, slots=True)
class _OfAttempt(_Asked):
    """A request about one attempt."""

    attempt: str


@dataclass(frozen=True, slots=True)
class Ports(_OfAttempt):
    """Hand over the agent's ends of an attempt's ports."""


@dataclass(frozen=True, slots=True)
class Stop(_OfAttempt):
    """End an attempt's process group."""

    grace_seconds: float | None


@dataclass(frozen=True, slots=True)
class Lease(_OfAttempt):
    """Let an attempt run until a moment on the machine's clock of leases."""

    lease_until: float


@dataclass(frozen=True, slots=True)
class Forget(_OfAttempt):
    """Drop an attempt, killing what is left of it."""


@dataclass(frozen=True, slots=True)
class List(_Asked):
    """Tell everything that is remembered."""


@dataclass(frozen=True, slots=True)
class Watch(_Asked):
    """Tell every end from now on; `highest` is the highest protocol that the asking agent speaks."""

    highest: int = 1


@dataclass(frozen=True, slots=True)
class Shutdown(_Asked):
    """End everything, then the keeper itself."""


Request = Start | Ports | Stop | Lease | Forget | List | Watch | Shutdown


class BadRequestError(ValueError):
    """A packet that is no request. `id` is that of the packet when it could be read, else 0."""

    def __init__(self, message: str, request_id: int = 0) -> None:
        super().__init__(message)
        self.id = request_id


def read_packet(packet: bytes) -> Sequence[Request | BadRequestError]:
    """Read the requests of a packet; one that is none is no reason to leave out the others.

    Raises:
        BadRequestError: it is not JSON, or holds nothing.
    """
    try:
        value: object = json.loads(packet.decode())
    except (ValueError, RecursionError) as error:
        raise BadRequestError(f"the packet is not JSON: {error}") from None
    if not isinstance(value, list):
        return (_read_one(value),)
    if not value:
        raise BadRequestError("the packet is an empty list")
    return [_read_one(one) for one in cast("list[object]", value)]


def _read_one(value: object) -> Request | BadRequestError:
    try:
        return read_request(value)
    except BadRequestError as error:
        return error


def read_request(value: object) -> Request:
    """Read one request.

    Raises:
        BadRequestError: It is not a JSON object, or a field is missing, unknown in type, or out of range.
    """
    if not isinstance(value, dict):
        raise BadRequestError("a request is not a JSON object")
    fields = cast("dict[str, object]", value)
    request_id = fields.get("id")
    if not isinstance(request_id, int):
        raise BadRequestError("a request has no integer `id`")
    try:
        return _read(fields, request_id)
    except (KeyError, TypeError, ValueError) as error:
        what = f"the field {error} is missing" if isinstance(error, KeyError) else str(error)
        raise BadRequestError(f"{fields.get('op')!r}: {what}", request_id) from None


def _read(fields: Mapping[str, object], request_id: int) -> Request:
    match fields["op"]:
        case "start" | "spawn" as op:
            return _read_start(fields, request_id, helper=op == "spawn")
        case "ports":
            return Ports(request_id, _as(str, fields["attempt"]))
        case "stop":
            grace = fields.get("grace_seconds")
            return Stop(
                request_id,
                _as(str, fields["attempt"]),
                None if grace is None else _seconds(grace),
            )
        case "lease":
            return Lease(request_id, _as(str, fields["attempt"]), _seconds(fields["lease_until"]))
        case "forget":
            return Forget(request_id, _as(str, fields["attempt"]))
        case "list":
            return List(request_id)
        case "watch":
            return Watch(request_id, _highest(fields.get("protocols")))
        case "shutdown":
            return Shutdown(request_id)
        case other:
            raise ValueError(f"unknown operation {other!r}")


def _read_start(fields: Mapping[str, object], request_id: int, *, helper: bool) -> Start:
    argv = tuple([_as(str, word) for word in _list(fields["argv"])])
    if not argv or not argv[0].startswith("/"):
        raise ValueError(f"argv {list(argv)!r} does not begin with an absolute path")
    if "\0" in "".join(argv):
        raise ValueError("argv holds a NUL")
    ports = tuple(_port(port) for port in _list(fields["ports"])) if "ports" in fields else ()
    if len(ports) > 1:
        _check_apart(ports)
    limits = _object(fields["limits"]) if "limits" in fields else {}
    program = Launch(
        attempt=_as(str, fields["attempt"]),
        argv=argv,
        env=_environment(fields["env"]),
        cwd=_as(str, fields["cwd"]),
        stdin=_as(str, fields.get("stdin", "")),
        stdout=_as(str, fields["stdout"]),
        stderr=_as(str, fields["stderr"]),
        ports=ports,
        memory_bytes=_as(int, limits.get("memory_bytes", 0)),
        open_files=_as(int, limits.get("open_files", 0)),
        sandbox=_plan(fields.get("sandbox", {})),
    )
    return Start(
        request_id,
        program,
        _seconds(fields.get("timeout_seconds", 0.0)),
        _seconds(fields.get("grace_seconds", 5.0)),
        _seconds(fields.get("lease_until", 0.0)),
        _seconds(fields.get("lease_grace_seconds", 0.0)),
        helper,
        _as(str, fields.get("made", "")),
    )


def _plan(value: object) -> SandboxPlan:
    if value == {}:
        return NO_PLAN
    plan = plan_from_json(value)
    # What bears a user of its own is ended by that user at its end.
    if plan.uid in {0, os.geteuid()}:
        raise ValueError(f"user {plan.uid} is no user of a job: give it one of its own")
    if plan.wrap and not plan.wrap[0].startswith("/"):
        raise ValueError(f"the words {list(plan.wrap)!r} do not begin with an absolute path")
    return plan


def _environment(value: object) -> dict[str, str]:
    env = cast("dict[str, str]", _object(value))
    names = "\0".join(env)
    try:
        texts = "\0".join(env.values())
    except TypeError:
        for text in env.values():
            _as(str, text)
        raise
    if "" in env:
        raise ValueError("a variable without a name cannot be set")
    if env and ("=" in names or names.count("\0") + texts.count("\0") > 2 * len(env) - 2):
        wrong = (one for one in env if "=" in one or "\0" in one or "\0" in env[one])
        raise ValueError(f"the variable {next(wrong)!r} cannot be set")
    return env


def _check_apart(ports: Sequence[Port]) -> None:
    names = {(port.name, port.direction) for port in ports}
    places = {port.path or port.fd for port in ports}
    if len(names) != len(ports) or len(places) != len(ports):
        raise ValueError("two ports share a name, a descriptor or a path")


def _highest(protocols: object) -> int:
    """The highest protocol of an agent; one of before says none."""
    return 1 if protocols is None else max(_as(int, one) for one in _list(protocols))


def _port(value: object) -> Port:
    fields = _object(value)
    name, direction = _as(str, fields["name"]), _as(str, fields["direction"])
    if direction not in {"in", "out"}:
        raise ValueError(f"port {name!r} needs direction in or out")
    if "path" in fields:
        path = _as(str, fields["path"])
        if not path.startswith("/") or "\0" in path:
            raise ValueError(f"port {name!r} needs an absolute path for its FIFO")
        record_bytes = _as(int, fields.get("record_bytes", 0))
        if record_bytes < 0:
            raise ValueError(f"port {name!r} has records of {record_bytes} bytes")
        return Port(name, direction, path=path, record_bytes=record_bytes)
    fd = _as(int, fields["fd"])
    highest = 500
    if not 0 <= fd < highest:
        raise ValueError(f"port {name!r} needs fd 0 to {highest - 1}, or a path")
    return Port(name, direction, fd)


def _as(kind: type[T], value: object) -> T:
    if type(value) is kind:
        return value  # as nearly always
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise TypeError(f"{value!r} is not a {kind.__name__}")
    return value


def _seconds(value: object) -> float:
    if type(value) is float and 0 <= value < _SECONDS_MAX:
        return value  # as nearly always
    if isinstance(value, bool) or not isinstance(value, _NUMBERS) or not 0 <= value < _SECONDS_MAX:
        raise TypeError(f"{value!r} is not a number of seconds")
    return float(value)


def _list(value: object) -> list[object]:
    return cast("list[object]", _as(list, value))


def _object(value: object) -> dict[str, object]:
    return cast("dict[str, object]", _as(dict, value))
