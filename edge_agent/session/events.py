"""What the session machine takes: one frozen value for each thing that happened."""

from dataclasses import dataclass

from shoal.session.messages import FromAgent, FromController, Hello


@dataclass(frozen=True, slots=True)
class ControllersKnown:
    """These controllers may be dialled, `host:port`, best first."""

    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LinkOpened:
    """A stream was opened; `hello` says which agent it is and what it knows."""

    link: int
    hello: Hello


@dataclass(frozen=True, slots=True)
class Moved:
    """What the last Hello said of the agent is not so any more: another one has to be said."""


@dataclass(frozen=True, slots=True)
class LinkClosed:
    """The stream has ended, or could not be had."""

    link: int
    reason: str


@dataclass(frozen=True, slots=True)
class Received:
    """A batch of the controller has arrived."""

    link: int
    sequence: int
    acknowledged: int
    messages: tuple[FromController, ...]


@dataclass(frozen=True, slots=True)
class Say:
    """Something that the controller should hear, if there is a session."""

    message: FromAgent


@dataclass(frozen=True, slots=True)
class Recorded:
    """What was delivered under this number is durable."""

    delivery: int


SessionEvent = ControllersKnown | LinkOpened | Moved | LinkClosed | Received | Say | Recorded
