"""A message as a source hands it over, and what is asked for in it."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass


class MessageKind(enum.Enum):
    """What a source's messages are about."""

    TASK = "task"
    """A task for a board: `{"userName":"ada","taskName":"task7","nodeId":"none",…}`, in SQS or MQTT."""
    UPLOAD = "upload"
    """An event of S3 about new objects."""
    QUESTION = "question"
    """A question about nodes: `{"action":"Active"}`."""


@dataclass(frozen=True, slots=True)
class IncomingMessage:
    """A message that a source has received and not let go of.

    Attributes:
        source: which source, such as `sqs:taskQ1`.
        kind: what its messages are about.
        id: the same at each delivery, and different for another message of the source.
        body: as it came.
        receipt: what the source knows this delivery by.
        id_given: whether the server gave the id, so that no two messages have the same one.
    """

    source: str
    kind: MessageKind
    id: str
    body: bytes
    receipt: str = ""
    id_given: bool = True

    @property
    def identity(self) -> tuple[str, str]:
        """What is the same at each delivery."""
        return (self.source, self.id)

    @property
    def key(self) -> tuple[str, str, str]:
        """What is under way as one: all deliveries, or each one where two messages may have one id."""
        return (*self.identity, "" if self.id_given else self.receipt)


@dataclass(frozen=True, slots=True)
class PipelineRequest:
    """One pipeline that a message asks for: its request id, and values for the template."""

    request_id: str
    values: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class NodeQuestion:
    """What a dashboard asks about nodes: of all that are active, or (`node`) the details of one."""

    node: str = ""


@dataclass(frozen=True, slots=True)
class MessageReading:
    """What a message asks for; with neither requests nor a question, nothing, and `remark` says why."""

    requests: tuple[PipelineRequest, ...] = ()
    question: NodeQuestion | None = None
    remark: str = ""


class UnreadableMessageError(ValueError):
    """A message that cannot be read, or asks for what there is not; the text says what and the remedy."""
