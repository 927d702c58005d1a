"""What an operator may set for an intake, read once at the root."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from services.events.broker_url import BrokerAddress, check_client_id
from services.intake.message import MessageKind
from services.intake.pipeline_template import SHIPPED
from services.runtime.address import AddressError, host_port


class IntakeConfigError(ValueError):
    """A setting that cannot be; the text names the option and the remedy."""


@dataclass(frozen=True, slots=True)
class SourceSettings:
    """A source of messages.

    Attributes:
        place: name or address of a queue of SQS, or a topic of MQTT.
        kind: what its messages are about.
        template: what is filled with their values; None for questions.
        topic: whether it is a topic.
    """

    place: str
    kind: MessageKind
    template: Path | None
    topic: bool = False

    @property
    def name(self) -> str:
        """What its messages have as their `source`."""
        return f"{'mqtt' if self.topic else 'sqs'}:{self.place}"


@dataclass(frozen=True, slots=True, kw_only=True)
class IntakeConfig:
    """Configuration of one intake.

    Attributes:
        state: folder that holds everything it keeps.
        name: its client id at the broker.
        controller: `host:port` of the controller.
        namespace: whose pipelines it submits.
        identity: folder of the credentials of a submitter; None proves nothing.
        sources: where messages come from.
        bucket: the value `bucket` of the template for task messages; empty for none.
        dead_queue: queue of SQS for refused messages of queues; empty for a folder of the state.
        dead_topic: topic for refused messages of topics; empty for that folder.
        sqs_endpoint: `http[s]://host[:port]` of SQS; empty for Amazon's.
        sqs_region: of the queues.
        broker: where the topics are; None for none.
        held_max: how many messages of one source may be under way.
        tries: how often a message may be refused before it is put aside.
        try_seconds: how long to wait after the first refusal; it doubles.
        hidden_seconds: how long a received message is hidden from others; it is asked for again in half of it.
        health_file: file that is written every few seconds while all is well; None for none.

    Raises:
        IntakeConfigError: a setting cannot be.
    """

    state: Path
    name: str
    controller: str
    namespace: str
    identity: Path | None
    sources: Sequence[SourceSettings]
    bucket: str = ""
    dead_queue: str = ""
    dead_topic: str = ""
    sqs_endpoint: str = ""
    sqs_region: str = "us-east-1"
    broker: BrokerAddress | None = None
    held_max: int = 100
    tries: int = 5
    try_seconds: float = 1.0
    hidden_seconds: float = 60.0
    health_file: Path | None = None

    def __post_init__(self) -> None:
        if not self.sources:
            raise IntakeConfigError(
                "there is nothing to take messages from: give --task-queue, --upload-queue, --node-queue, "
                "--task-topic or --node-topic"
            )
        names = [source.name for source in self.sources]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise IntakeConfigError(f"{twice[0]} is named twice; name each queue and topic once")
        try:
            host_port(self.controller, hostless=True)
            check_client_id(self.name)
        except (AddressError, ValueError) as error:
            raise IntakeConfigError(str(error)) from None
        topics = [source.place for source in self.sources if source.topic]
        if (topics or self.dead_topic) and self.broker is None:
            raise IntakeConfigError("topics need a broker: name it with --mqtt")
        asked = [one.place for one in self.sources if one.kind is MessageKind.QUESTION]
        if asked and self.broker is None:
            raise IntakeConfigError(
                f"questions of {asked[0]} are answered on topics of a broker: name it with --mqtt"
            )
        queues = [source.place for source in self.sources if not source.topic]
        if self.dead_queue and self.dead_queue in queues:
            raise IntakeConfigError(
                f"--dead-queue {self.dead_queue} is also a source: what is put aside would come again; name another"
            )
        for option, value, least in (
            ("--held-messages", self.held_max, 1),
            ("--tries", self.tries, 1),
            ("--try-seconds", self.try_seconds, 0.01),
            ("--hidden-seconds", self.hidden_seconds, 1),
        ):
            if value < least:
                raise IntakeConfigError(f"{option} is {value}; it has to be at least {least}")
        if self.hidden_seconds > 3600:
            raise IntakeConfigError(f"--hidden-seconds is {self.hidden_seconds:g}; 3600 at most")


def source_settings(
    given: Sequence[str], kind: MessageKind, template: Path | None, *, topic: bool = False
) -> list[SourceSettings]:
    """Read `QUEUE`, or `QUEUE=TEMPLATE`, of each.

    Raises:
        IntakeConfigError: one has no name, or needs a template and has none.
    """
    found: list[SourceSettings] = []
    for word in given:
        place, _, own = word.partition("=")
        if not place:
            raise IntakeConfigError(
                f"{word!r} names no queue or topic; write NAME or NAME=TEMPLATE"
            )
        chosen = Path(own) if own else template
        if kind is MessageKind.QUESTION:
            chosen = None
        elif kind is MessageKind.UPLOAD and chosen is None:
            raise IntakeConfigError(
                f"uploads of {place!r} need a template, since each bucket has its own: write {place}=FILE"
            )
        found.append(SourceSettings(place, kind, chosen or _shipped(kind), topic))
    return found


def _shipped(kind: MessageKind) -> Path | None:
    return SHIPPED if kind is MessageKind.TASK else None
