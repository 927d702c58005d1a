"""The shell around the machine: receives, submits, puts aside and deletes, as the machine decides."""

import asyncio
import contextlib
import datetime as dt
import fcntl
import logging
import os
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Final, TypeVar, assert_never

from services.intake import effects, events
from services.intake.config import IntakeConfig
from services.intake.controller_link import ControllerLink, RequestRefusedError
from services.intake.dashboard_answers import DashboardAnswers
from services.intake.dead_letter_folder import DeadLetterFolder
from services.intake.machine import IntakeMachine, IntakePatience
from services.intake.message import IncomingMessage, MessageKind
from services.intake.node_answers import NodeAnswers
from services.intake.pipeline_template import PipelineTemplate, read_template
from services.intake.room import DeliveryRoom
from services.intake.source import (
    DeadLetters,
    Deliver,
    DeliveryLostError,
    LetterRefusedError,
    MessageSource,
    ServerAwayError,
)
from services.intake.tries import NAME, MessageTries
from services.runtime.driver import Driver
from services.runtime.health_file import HealthFile
from services.runtime.log import CountedLog, fields
from services.runtime.process import StartRefusedError
from services.runtime.state_folder import PRIVATE_FILE, prepare_state_folder
from shoal.backoff import Backoff

LOG = logging.getLogger(__name__)

T = TypeVar("T")

LOCK_NAME: Final = "intake.lock"
_GIVE_BACK_SECONDS: Final = 3.0
_DISK_SECONDS: Final = 2.0
_LEVELS: Final = {"refused": logging.WARNING, "put aside": logging.ERROR}
SAMPLE: Final = MappingProxyType(
    {
        "name": "sample",
        "user": "ada",
        "action": "Classification",
        "task": "task7",
        "node": "",
        "camera": "false",
        "device": "",
        "bucket": "bucket",
        "prefix": "ada/Classification/task7/",
        "key": "folder/file",
        "folder": "folder",
        "file": "file",
        "source": "s3://bucket/folder/file",
        "size": "1",
        "version": "",
    }
)
"""Values of a message that asks for any node and no camera."""


_Run = Callable[[Deliver], Coroutine[None, None, None]]
"""Delivers until cancelled."""


@dataclass(frozen=True, slots=True)
class IntakeProcess:
    """What a process takes from its machine.

    Attributes:
        clock: seconds on a monotonic clock.
        boottime: seconds since the machine started.
        wall: seconds since 1970.
        chance: a number from [0, 1).
    """

    clock: Callable[[], float]
    boottime: Callable[[], float]
    wall: Callable[[], float]
    chance: Callable[[], float]


@dataclass(eq=False)
class Intake:
    """One intake; `run` it once.

    Args:
        config: what to take, and where to submit it.
        process: clocks and chance.
        ready: called once it receives.
        answers: answers questions about nodes; None answers on the topics of the broker.
    """

    config: IntakeConfig
    process: IntakeProcess
    ready: Callable[[], None] = lambda: None
    answers: NodeAnswers | None = None
    _tasks: asyncio.TaskGroup = field(default_factory=asyncio.TaskGroup, init=False)
    _sources: dict[str, MessageSource] = field(default_factory=dict[str, MessageSource], init=False)
    _rooms: dict[str, DeliveryRoom] = field(default_factory=dict[str, DeliveryRoom], init=False)
    _here: dict[events.MessageKey, IncomingMessage] = field(
        default_factory=dict[events.MessageKey, IncomingMessage], init=False
    )

    def __post_init__(self) -> None:
        config = self.config
        patience = IntakePatience(
            tries_max=config.tries,
            try_pause=Backoff(config.try_seconds, max(60.0, config.try_seconds), jitter=0.5),
            hidden_seconds=config.hidden_seconds,
        )
        self._driver = Driver[events.IntakeEvent, effects.IntakeEffect](
            IntakeMachine(patience), self._act, self.process.clock, inbox_size=4096
        )
        self._told = CountedLog(LOG, self.process.clock)
        self._letters = DeadLetterFolder(config.state / "dead-letters", self.process.wall)
        self._controller = ControllerLink(
            config.controller,
            config.namespace,
            config.identity,
            lambda: dt.datetime.fromtimestamp(self.process.wall(), dt.UTC),
        )

    async def run(self) -> None:
        """Take messages until cancelled; then what is not done with goes back to its source.

        Raises:
            StartRefusedError: the state folder, or a template, cannot be used.
        """
        config = self.config
        async with contextlib.AsyncExitStack() as stack:
            await asyncio.to_thread(stack.enter_context, _held(config.state))
            self._tries = await asyncio.to_thread(
                lambda: stack.enter_context(MessageTries(config.state / NAME))
            )
            self._templates = await asyncio.to_thread(self._read_templates)
            runs = await stack.enter_async_context(self._open_sources())
            try:
                async with self._tasks as tasks:
                    tasks.create_task(self._controller.run())
                    tasks.create_task(self._driver.run())
                    if config.health_file is not None:
                        health = HealthFile(config.health_file, self.process.boottime)
                        tasks.create_task(health.run())
                    for run in runs:
                        tasks.create_task(run(self._deliver))
                    self.ready()
            finally:
                await self._give_back()

    def _read_templates(self) -> Mapping[str, PipelineTemplate]:
        return {
            source.name: read_template(source.template, SAMPLE)
            for source in self.config.sources
            if source.template is not None
        }

    @contextlib.asynccontextmanager
    async def _open_sources(
        self,
    ) -> AsyncIterator[list[_Run]]:
        """Make all sources and dead-letter queues; yields what has to run."""
        config = self.config
        queues = [source for source in config.sources if not source.topic]
        topics = {source.place: source.kind for source in config.sources if source.topic}
        asked = any(source.kind is MessageKind.QUESTION for source in config.sources)
        runs: list[_Run] = []
        self._dead: dict[bool, DeadLetters] = {False: self._letters, True: self._letters}
        async with contextlib.AsyncExitStack() as stack:
            if queues or config.dead_queue:
                # Amazon's libraries are as large as everything else together.
                from services.intake.sqs import (  # noqa: PLC0415
                    SqsDeadLetters,
                    SqsQueue,
                    SqsSource,
                    sqs_client,
                )

                client = await stack.enter_async_context(
                    sqs_client(config.sqs_endpoint, config.sqs_region, len(queues))
                )
                for one in queues:
                    source = SqsSource(
                        SqsQueue(client, one.place),
                        one.kind,
                        config.hidden_seconds,
                        self._room(one.name),
                        self.process.chance,
                    )
                    self._take(source)
                    runs.append(source.run)
                if config.dead_queue:
                    self._dead[False] = SqsDeadLetters(SqsQueue(client, config.dead_queue))
            if config.broker is not None and (topics or config.dead_topic or asked):
                from services.intake.mqtt import (  # noqa: PLC0415
                    MqttDeadLetters,
                    MqttIntakeLink,
                    MqttSource,
                )

                link = MqttIntakeLink(
                    config.broker, config.name, topics, config.held_max, chance=self.process.chance
                )
                for topic in topics:
                    self._take(MqttSource(link, topic))
                runs.append(link.run)
                self.answers = self.answers or DashboardAnswers(self._controller, link)
                if config.dead_topic:
                    self._dead[True] = MqttDeadLetters(link, config.dead_topic)
            yield runs

    def _room(self, source: str) -> DeliveryRoom:
        return self._rooms.setdefault(source, DeliveryRoom(self.config.held_max))

    def _take(self, source: MessageSource) -> None:
        self._sources[source.name] = source

    async def _deliver(self, message: IncomingMessage) -> None:
        await self._room(message.source).take()
        self._here[message.key] = message
        tries, reason = await self._disk(lambda: self._tries.of(message.identity))
        await self._driver.post(events.MessageArrived(message, tries, reason))

    # ---- what the machine decides

    async def _act(self, effect: effects.IntakeEffect) -> None:
        match effect:
            case effects.RecordTry(message, tries, reason):
                now = self.process.wall()
                await self._disk(lambda: self._tries.record(message.identity, tries, reason, now))
            case effects.ForgetTries(message):
                await self._disk(lambda: self._tries.forget(message.identity))
            case effects.LetGo(message):
                self._room(message.source).give_back()
                if self._here.get(message.key) == message:
                    del self._here[message.key]
            case effects.TellOutcome(message, outcome, detail):
                self._tell(message, outcome, detail)
            case effects.SubmitRequests(message):
                self._start(message, self._submit(effect))
            case effects.AnswerQuestion(message):
                self._start(message, self._answer(effect))
            case effects.BuryMessage(message):
                self._start(message, self._bury(effect))
            case effects.DeleteMessage(message):
                self._start(message, self._delete(message))
            case effects.KeepHidden(message):
                self._tasks.create_task(self._hide(message))
            case _:
                assert_never(effect)

    def _start(self, message: IncomingMessage, doing: Awaitable[events.IntakeEvent]) -> None:
        """Do something for a message in a task of its own, and hand its outcome to the machine."""

        async def do() -> None:
            try:
                outcome = await doing
            except ServerAwayError as error:
                outcome = events.ServerAway(message.key, str(error), self.process.chance())
            except (RequestRefusedError, LetterRefusedError) as error:
                outcome = events.RequestRefused(message.key, str(error), self.process.chance())
            await self._driver.post(outcome)

        self._tasks.create_task(do())

    async def _submit(self, effect: effects.SubmitRequests) -> events.IntakeEvent:
        message, requests = effect.message, effect.requests
        if message.kind is MessageKind.TASK and self.config.bucket:
            requests = tuple(
                replace(one, values={**one.values, "bucket": self.config.bucket})
                for one in requests
            )
        try:
            names = await self._controller.submit(
                requests,
                self._templates[message.source],
                f"message {message.id}",
                ids_given=message.id_given,
            )
        except (RequestRefusedError, ServerAwayError):
            raise
        except Exception as error:  # what a message breaks in us must not end the process
            LOG.exception("a message broke something", extra=fields(source=message.source))
            raise RequestRefusedError(f"the intake broke over it: {error!r}") from error
        return events.RequestCommitted(message.key, names)

    async def _answer(self, effect: effects.AnswerQuestion) -> events.IntakeEvent:
        if self.answers is None:
            raise ServerAwayError("this intake answers no questions about nodes")
        await self.answers.answer(effect.question)
        return events.RequestCommitted(effect.message.key)

    async def _bury(self, effect: effects.BuryMessage) -> events.IntakeEvent:
        message = effect.message
        place = self._dead[message.source.startswith("mqtt:")]
        try:
            await place.bury(message, effect.tries, effect.reason)
        except LetterRefusedError as error:
            self._told.warn(
                "a message is put aside in the folder of the state",
                source=message.source,
                why=error,
            )
            await self._letters.bury(message, effect.tries, effect.reason)
        return events.MessageBuried(message.key)

    async def _delete(self, message: IncomingMessage) -> events.IntakeEvent:
        try:
            await self._sources[message.source].delete(message)
        except DeliveryLostError:
            return events.MessageDeleted(message.key, message.receipt, lost=True)
        return events.MessageDeleted(message.key, message.receipt)

    async def _hide(self, message: IncomingMessage) -> None:
        source = self._sources[message.source]
        try:
            await source.hide(message, self.config.hidden_seconds)
        except DeliveryLostError:
            await self._driver.post(events.MessageLost(message.key, message.receipt))
        except ServerAwayError as error:
            self._told.warn("a message cannot be kept hidden", source=message.source, why=error)

    async def _give_back(self) -> None:
        """Let others have at once what is not done with, as far as that is quick."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GIVE_BACK_SECONDS):
                await asyncio.gather(
                    *(self._sources[one.source].hide(one, 0) for one in self._here.values()),
                    return_exceptions=True,
                )

    async def _disk(self, work: Callable[[], T]) -> T:
        """Read or write the tries; a disk that takes nothing holds everything up until it does."""
        while True:
            try:
                return await asyncio.to_thread(work)
            except sqlite3.Error as error:
                self._told.warn("the tries cannot be written; nothing goes on", why=error)
                await asyncio.sleep(_DISK_SECONDS)

    def _tell(self, message: IncomingMessage, outcome: str, detail: str) -> None:
        if outcome == "waits":
            self._told.warn(
                "messages wait for a server that is away", source=message.source, why=detail
            )
            return
        LOG.log(
            _LEVELS.get(outcome, logging.INFO),
            "message %s",
            outcome,
            extra=fields(source=message.source, id=message.id, detail=detail),
        )


@contextlib.contextmanager
def _held(state: Path) -> Iterator[None]:
    """Hold a state folder: one intake at a time."""
    prepare_state_folder(state, LOCK_NAME)
    try:
        lock = os.open(state / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE_FILE)
    except OSError as error:
        raise StartRefusedError(
            f"the state folder {state} cannot be used: {error.strerror}; let this user write there, or choose "
            "another --state"
        ) from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StartRefusedError(
                f"another intake runs with --state {state}; end it, or use another folder"
            ) from None
        yield
    finally:
        os.close(lock)
