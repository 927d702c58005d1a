"""What the intake decides: frozen, and performed in their order."""

from dataclasses import dataclass

from services.intake.message import IncomingMessage, NodeQuestion, PipelineRequest


@dataclass(frozen=True, slots=True)
class SubmitRequests:
    """Submit pipelines; ends as RequestCommitted, RequestRefused or ServerAway."""

    message: IncomingMessage
    requests: tuple[PipelineRequest, ...]


@dataclass(frozen=True, slots=True)
class AnswerQuestion:
    """Answer a question about nodes; ends as a submission does."""

    message: IncomingMessage
    question: NodeQuestion


@dataclass(frozen=True, slots=True)
class RecordTry:
    """Remember durably that a message was refused, and why, before anything else happens."""

    message: IncomingMessage
    tries: int
    reason: str


@dataclass(frozen=True, slots=True)
class ForgetTries:
    """Forget what was remembered of a message that its source has forgotten."""

    message: IncomingMessage


@dataclass(frozen=True, slots=True)
class BuryMessage:
    """Put a message into the dead-letter queue, with the reason; ends as MessageBuried or ServerAway."""

    message: IncomingMessage
    tries: int
    reason: str


@dataclass(frozen=True, slots=True)
class DeleteMessage:
    """Let the source forget a message; ends as MessageDeleted or ServerAway."""

    message: IncomingMessage


@dataclass(frozen=True, slots=True)
class KeepHidden:
    """Ask the source not to deliver a message to others for a while yet; may end as MessageLost."""

    message: IncomingMessage


@dataclass(frozen=True, slots=True)
class LetGo:
    """A delivery is over: its source may deliver another message in its place."""

    message: IncomingMessage


@dataclass(frozen=True, slots=True)
class TellOutcome:
    """Write one line for people about a message."""

    message: IncomingMessage
    outcome: str
    detail: str = ""


IntakeEffect = (
    SubmitRequests
    | AnswerQuestion
    | RecordTry
    | ForgetTries
    | BuryMessage
    | DeleteMessage
    | KeepHidden
    | LetGo
    | TellOutcome
)
