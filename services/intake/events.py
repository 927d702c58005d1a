"""What happens to the intake: messages come, and what was begun for them ends well or not."""

from dataclasses import dataclass

from services.intake.message import IncomingMessage

MessageKey = tuple[str, str, str]
"""What `IncomingMessage.key` says."""


@dataclass(frozen=True, slots=True)
class MessageArrived:
    """A source has delivered a message, which was refused `tries` times before, the last time for `reason`."""

    message: IncomingMessage
    tries: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class RequestCommitted:
    """Everything that a message asks for is recorded by the controller, or was before."""

    key: MessageKey
    pipelines: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RequestRefused:
    """What a message asks for cannot be; `chance` is drawn from [0, 1) for the wait."""

    key: MessageKey
    reason: str
    chance: float


@dataclass(frozen=True, slots=True)
class ServerAway:
    """What was begun for a message could not be done now, and says nothing about the message."""

    key: MessageKey
    reason: str
    chance: float


@dataclass(frozen=True, slots=True)
class MessageBuried:
    """The dead-letter queue has a message."""

    key: MessageKey


@dataclass(frozen=True, slots=True)
class MessageDeleted:
    """Its source has forgotten a message, or (`lost`) knows nothing of that delivery any more."""

    key: MessageKey
    receipt: str
    lost: bool = False


@dataclass(frozen=True, slots=True)
class MessageLost:
    """A message is hidden no longer: its source delivers it again."""

    key: MessageKey
    receipt: str


IntakeEvent = (
    MessageArrived
    | RequestCommitted
    | RequestRefused
    | ServerAway
    | MessageBuried
    | MessageDeleted
    | MessageLost
)
