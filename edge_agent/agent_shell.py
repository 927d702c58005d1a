"""The shell of an agent: its two machines, their drivers, and how what they decide is performed.

One machine keeps the session with a controller (`session/machine.py`), the other drives every
attempt of the node (`attempts/machine.py`). Neither knows the other: what the controller wants is
posted from the one to the other, and so is what it has to hear. Everything outside is reached
through links, so that a simulation runs the same shell; `agent.py` makes the links of a board.

An effect of an attempt is performed by that attempt's own shell, in order; what the journal is asked
for is asked here, so that entries become durable in the order in which they were decided.
"""

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from dataclasses import replace
from itertools import chain
from typing import Any, Final, assert_never

from edge_agent.address_requests import AddressRequests
from edge_agent.agent_figures import NodeStanding
from edge_agent.agent_process import AgentProcess
from edge_agent.attempt_folder import keeper_id, parse_keeper_id
from edge_agent.attempt_services import AttemptServices
from edge_agent.attempts import effects, events
from edge_agent.attempts.local_attempt import LocalAttempt, ProgramExit, ProgramStatus
from edge_agent.attempts.machine import AttemptsMachine
from edge_agent.attempts.phase import ARCHIVING, FAILS_FOR_ITS_DISK, PREPARING, Phase
from edge_agent.attempts.shell import AttemptShell
from edge_agent.attempts.waits import Waits
from edge_agent.config import AgentConfig
from edge_agent.disk_claim import ClaimedFolder, beyond_claim, next_look
from edge_agent.disk_watch import DiskWatch
from edge_agent.facts.heat import refusal
from edge_agent.facts.news import worth_telling
from edge_agent.facts.reader import WINDOW_SECONDS
from edge_agent.followed import followed_text, read_followed
from edge_agent.identity_upkeep import IdentityUpkeep
from edge_agent.keeper.client import KeeperError
from edge_agent.keeper.record import ProcessRecord
from edge_agent.keeper_link import KeeperLink, attempt_of, program_exit
from edge_agent.lease import NodeLease
from edge_agent.links.agent_links import AgentLinks
from edge_agent.links.stream_worker import HELPER
from edge_agent.outdated import Outdated
from edge_agent.sandbox.binding import binding_claims
from edge_agent.secrets.secret_mask import NO_MASK, SecretMask, mask_of
from edge_agent.session import effects as session_effects
from edge_agent.session.events import ControllersKnown, Moved, Recorded, Say, SessionEvent
from edge_agent.session.machine import SessionConfig, SessionMachine, SessionState
from edge_agent.session_link import SessionLink
from edge_agent.stream_link import STREAM_WORKER, StreamLink
from edge_agent.uploads.small_contents import SmallContents
from edge_agent.uploads.spool_limit import SpoolLimit
from services.runtime.driver import Driver
from services.runtime.log import fields
from services.runtime.process import StartRefusedError
from shoal.model import Reason, ReasonCode
from shoal.names import AttemptRef
from shoal.node_facts import NO_FACTS, NodeFacts
from shoal.protocol_version import SESSION
from shoal.sandbox import Claim, SandboxLevel
from shoal.session.bundles import BundlesHeld, BundlesWanted, WantedBundle
from shoal.session.feature import Feature
from shoal.session.folder_files import FilesGranted
from shoal.session.log_piece import LogPiece
from shoal.session.messages import (
    WELL,
    Desired,
    FactsWanted,
    Fenced,
    FromAgent,
    Hello,
    NodeCondition,
    Refused,
)
from shoal.session.observation import Observation
from shoal.session.trust import CertificateIssued, Trust
from shoal.session.uploads import UploadsGranted
from shoal.spec import Job, Placement

LOG = logging.getLogger(__name__)

INSTANCE: Final = "instance"
"""Fact of the journal: drawn when the journal was made."""
FOLLOWED: Final = "followed"
"""Fact of the journal: how much is known of the controller that was followed last, as JSON."""

CONTROLLER: Final = "controller"
"""Fact of the journal: address of the controller that the last session was with, of a node with an identity."""

BUNDLES: Final = "bundles"
"""Fact of the journal: digests of the bundles that are to be kept, with blanks between."""

_INBOX_SIZE: Final = 8192
_DISK_SECONDS: Final = 1.0
_FACTS_SECONDS: Final = 30.0
"""How often the machine is looked at; what has not changed is not told."""
_NO_ROOM_FOR_LOGS: Final = Reason(ReasonCode.DISK, 0, "the disk is short")
_KEEPER_SECONDS: Final = 30.0
_STREAMS_READY_SECONDS: Final = 10.0


class AgentShell:
    """What an agent decides and performs; `run` runs it.

    Args:
        config: what the operator set.
        process: what the process gives.
        links: how everything outside is reached; open, and closed by the caller.
    """

    def __init__(self, config: AgentConfig, process: AgentProcess, links: AgentLinks) -> None:
        self._config = config
        self._process = process
        self._links = links
        self._agent_id = process.token()
        self._instance_id = ""
        self._attempts = AttemptsMachine()
        self._protocols = SESSION.said_by(process.version)
        self._session = SessionMachine(
            SessionConfig(),
            process.rng.random,
            cluster=links.cluster,
            protocols=self._protocols,
        )
        self._attempts_driver: Driver[events.AttemptsEvent, effects.AttemptsEffect] = Driver(
            self._attempts, self._act_on_attempt, process.clock, inbox_size=_INBOX_SIZE
        )
        self._session_driver: Driver[SessionEvent, session_effects.SessionEffect] = Driver(
            self._session, self._act_on_session, process.clock, inbox_size=_INBOX_SIZE
        )
        self._link = SessionLink(
            self._session_driver.post, self._hello, process.clock, links.dial, links.explain
        )
        self._logs = links.logs(self._say)
        self._lease = NodeLease(process.clock)
        self._journal = links.journal
        self._keeper = KeeperLink(links.keeper, process.version)
        self._first_list: asyncio.Future[tuple[str, list[ProcessRecord]]] | None = None
        self._streams = StreamLink(
            self._keeper,
            links.stream_worker,
            self._journal,
            self._attempts_driver.post,
            self._say,
            links.trust,
            process.version,
        )
        self._upkeep = (
            None
            if links.identity is None
            else IdentityUpkeep(
                links.identity, self._say, self._streams.say_trust, links.take_gossip_keys
            )
        )
        self._addresses = AddressRequests(self._say)
        self._contents = SmallContents()
        self._services = AttemptServices(
            attempts=config.state / "attempts",
            journal=self._journal,
            keeper=self._keeper,
            streams=self._streams,
            workshop=links.workshop,
            logs=self._logs,
            lease=self._lease,
            wall=process.wall,
            post=self._attempts_driver.post,
            offer=self._attempts_driver.offer,
            say=self._say,
            hint=lambda message: self._session_driver.offer(Say(message)),
            ask=self._addresses.ask,
            mask=self._mask,
            spawn=self._spawn,
            waits=Waits(),
            contents=self._contents,
        )
        self._shells: dict[AttemptRef, AttemptShell] = {}
        self._group: asyncio.TaskGroup | None = None
        self._ending = False
        self._disk = DiskWatch(str(config.state), config.disk_reserve_bytes)
        self._spool = SpoolLimit(config.spool_bytes_max)
        self._claims_at = 0.0
        """When it is looked again at what attempts have written of what they claim."""
        self._said = WELL
        self._kept = ""
        """Digests of the bundles that are to be kept, as they are in the journal."""
        self._held: frozenset[str] = frozenset()
        """The bundles that this session's controller was told of."""
        self._facts = NO_FACTS
        self._facts_told: NodeFacts | None = None
        """What this session's controller was told last."""
        self._facts_wanted = asyncio.Event()
        self._dialled = self._served_at = ""
        self._introduced: str | None = None
        """Where the controller was told that the stream worker is, empty for nowhere yet; None if no Hello
        says it now."""
        self._introduced_listening = False
        self.restored = asyncio.Event()
        """Set once everything that an earlier agent left is taken over."""

    @property
    def records(self) -> Mapping[AttemptRef, LocalAttempt]:
        """Every attempt that the node knows."""
        return self._attempts.records

    def standing(self) -> NodeStanding:
        """How the node stands now; costs nothing until it is asked."""
        return NodeStanding(
            session=self._session.state is SessionState.OPEN,
            quarantined=self._session.state is SessionState.QUARANTINED,
            refuses=self._said.refuses,
            phases=Counter(record.phase for record in self._attempts.records.values()),
            spool_bytes=self._attempts.spooled()[0],
            disk=self._disk.reading,
            facts=self._facts,
        )

    async def run(self) -> None:
        """Take over what an earlier agent left, and be an agent until cancelled; then say goodbye.

        Raises:
            StartRefusedError: no keeper can be had, or there is one, or a stream worker, of a build that
                this agent cannot work with.
        """
        self._first_list = asyncio.get_running_loop().create_future()
        self._disk.measured(await self._links.disk.read(), self._process.clock())
        self._facts = await self._links.facts.read()
        async with asyncio.TaskGroup() as group:
            self._group = group
            group.create_task(self._keeper.run(self._listed, self._exited, self._ended))
            facts = await self._journal.facts()
            await self._remember(facts)
            await self._restore(facts, self._first_list)
            for running in (
                self._streams.run(),
                self._logs.run(),
                self._services.waits.run(),
                self._attempts_driver.run(),
                self._session_driver.run(),
                self._link.run(),
                self._find_controllers(),
                self._watch_disk(),
                self._watch_facts(),
                self._links.workshop.prefetch(),
            ):
                group.create_task(running)
            if self._upkeep is not None:
                group.create_task(self._upkeep.run())
            self.restored.set()
            try:
                await asyncio.Event().wait()
            finally:
                try:
                    await self._link.leave()
                finally:
                    self._ending = True  # also where a task of the agent has failed

    # ---- beginning

    async def _remember(self, facts: Mapping[str, str]) -> None:
        """Take up which node this is and which controller it follows; a new journal is a new instance."""
        self._instance_id = facts.get(INSTANCE, "")
        if not self._instance_id:
            self._instance_id = self._process.token()
            await self._journal.note(INSTANCE, self._instance_id)
        self._session.followed = read_followed(facts.get(FOLLOWED, ""))
        self._served_at = facts.get(CONTROLLER, "")
        self._kept = facts.get(BUNDLES, "")
        self._links.workshop.want(BundlesWanted(tuple(map(WantedBundle, self._kept.split()))))

    async def _restore(
        self, facts: Mapping[str, str], first_list: asyncio.Future[tuple[str, list[ProcessRecord]]]
    ) -> None:
        """Take over what an earlier agent left, before anything else happens."""
        try:
            async with asyncio.timeout(_KEEPER_SECONDS):
                keeper, processes = await first_list
        except TimeoutError:
            raise StartRefusedError(
                f"no keeper answered at {self._keeper.path} within {_KEEPER_SECONDS:g} s: "
                f"see {self._config.state / 'keeper.log'}"
            ) from None
        records = await self._journal.load()
        booted = self._process.boot_id
        rebooted = facts.get("boot_id", booted) != booted
        survived = self._streams.recall(facts, processes)
        known = {record.ref for record in records}
        strangers = [
            process.attempt
            for process in processes
            if not process.helper and parse_keeper_id(process.attempt) not in known
        ]
        await asyncio.gather(*map(self._keeper.forget, strangers))
        running = {process.attempt for process in processes if process.running}
        await self._links.workshop.sweep({keeper_id(ref) for ref in known}, running)
        masks = {record.ref: mask_of(record.assignment) for record in records}
        for record in records:
            if record.phase not in PREPARING and record.phase is not Phase.FORGETTING:
                folder = self._services.folder(record.ref).path
                ended = record.over or record.phase in ARCHIVING
                self._logs.follow(record.ref, folder, masks[record.ref], ended=ended)
        found = self._programs(processes, lambda ref: masks.get(ref, NO_MASK))
        restored = events.Restored(
            records, keeper, found, rebooted, survived, unable=bool(self._lacks_sandboxes())
        )
        for effect in self._attempts.handle(restored, self._process.clock()):
            waits = self._act_on_attempt(effect)
            if waits is not None:
                await waits
        if facts.get("boot_id") != booted:
            # Not waited for: a start is no reason to need room on the disk.
            self._journal.note("boot_id", booted)
        LOG.info(
            "agent started",
            extra=fields(
                node=self._config.name,
                attempts=len(records),
                processes=len(processes),
                rebooted=rebooted,
                streams_survived=survived,
            ),
        )

    # ---- the machine that drives attempts

    def _act_on_attempt(self, effect: effects.AttemptsEffect) -> Coroutine[Any, Any, None] | None:
        match effect:
            case effects.WriteJournal(record):
                # Asked for here and now, so that entries become durable in this order.
                done = self._journal.put(record)
                return self._shell(record.ref).put(done)
            case effects.NoteStreamWorker(identity):
                # After what was lost with the one before, so that an agent that dies here knows it.
                self._spawn(_durable(self._journal.note(STREAM_WORKER, identity)))
            case effects.DismissKeeper(keeper):
                self._spawn(_asked(self._keeper.dismiss(keeper)))
            case effects.DismissStreamWorker():
                if self._outdated().stream_worker:  # else it is another one already
                    # Here and now, before anything that was decided later is attached to it.
                    self._streams.let_go()
                    self._spawn(_asked(self._streams.dismiss()))
            case effects.DesiredRecorded(delivery):
                durable = self._journal.barrier()
                durable.add_done_callback(lambda _: self._recorded(delivery))
            case _:
                return self._shell(effect.ref).put(effect)
        return None

    def _shell(self, ref: AttemptRef) -> AttemptShell:
        shell = self._shells.get(ref)
        if shell is None:
            shell = self._shells[ref] = AttemptShell(ref, self._services, self._forgotten)
        return shell

    def _forgotten(self, ref: AttemptRef, kept: bool) -> None:  # noqa: FBT001 - as a shell calls it
        # Gone before the machine knows, so that a new life of this name gets a shell of its own.
        del self._shells[ref]
        forgotten = events.Forgotten(ref)
        if not self._attempts_driver.offer(forgotten):
            self._spawn(self._attempts_driver.post(forgotten))
        if kept:
            self._spawn(self._say_condition())

    def _recorded(self, delivery: int) -> None:
        recorded = Recorded(delivery)
        if not self._session_driver.offer(recorded):
            self._spawn(self._session_driver.post(recorded))

    async def _listed(self, keeper: str, processes: list[ProcessRecord]) -> None:
        if self._first_list is not None and not self._first_list.done():
            self._first_list.set_result((keeper, processes))
        else:
            await self._streams.listed(processes)
            await self._attempts_driver.post(
                events.ProgramsListed(
                    keeper,
                    self._programs(processes, self._mask),
                    unable=bool(self._lacks_sandboxes()),
                )
            )

    async def _exited(self, process: ProcessRecord) -> None:
        if process.left:
            LOG.warning("something is left", extra=fields(name=process.attempt, why=process.left))
        if process.attempt == HELPER:
            await self._streams.ended(process)
        ref = attempt_of(process)
        if ref is not None:
            # Looked at here and now, since it may just have been filled, or have been freed.
            full = self._disk.full_at(await self._links.disk.read()) if process.exit_code else ""
            ended = self._exit(ref, process, full, self._mask(ref))
            if self._links.workshop.holds(ref):
                await self._links.workshop.ended(ref)
            await self._attempts_driver.post(events.ProgramEnded(ref, ended))

    def _ended(self, process: ProcessRecord) -> bool:
        """Take the end of a program that ended well and of which nothing else is to be said; say whether it was one."""
        if process.exit_code != 0 or process.left or process.not_begun:
            return False
        ref = attempt_of(process)
        if ref is None or self._links.workshop.holds(ref):
            return False
        record, shell = self._attempts.records.get(ref), self._shells.get(ref)
        nothing = (
            record is not None
            and shell is not None
            and record.phase is Phase.RUNNING
            and not record.assignment.has_ports
            and shell.left_nothing(record.assignment)
        )
        return self._attempts_driver.offer(
            events.ProgramEnded(ref, program_exit(process, "", ""), nothing)
        )

    def _mask(self, ref: AttemptRef) -> SecretMask:
        """What hides the secrets of an attempt in all that is said of it."""
        record = self._attempts.records.get(ref)
        return NO_MASK if record is None else mask_of(record.assignment)

    def _exit(
        self, ref: AttemptRef, process: ProcessRecord, disk_full: str, mask: SecretMask
    ) -> ProgramExit:
        """How a program ended, with its last words from its folder."""
        said = ""
        if process.exit_code != 0:
            said = self._logs.last_words(self._services.folder(ref).path, mask)
        if process.not_begun:  # words of bubblewrap, which stand in the program's own output, too
            process = replace(process, not_begun=mask.text(process.not_begun))
        return program_exit(process, said, disk_full)

    def _programs(
        self, processes: list[ProcessRecord], mask: Callable[[AttemptRef], SecretMask]
    ) -> Mapping[AttemptRef, ProgramStatus]:
        found: dict[AttemptRef, ProgramStatus] = {}
        for process in processes:
            ref = attempt_of(process)
            if ref is not None:
                ended = (
                    None
                    if process.running
                    else self._exit(ref, process, self._disk.full, mask(ref))
                )
                found[ref] = ProgramStatus(process.start_time, ended)
        return found

    # ---- the disk

    async def _watch_disk(self) -> None:
        """Look at the disk of the state folder until cancelled."""
        told = ""
        while True:
            reading = await self._links.disk.read()
            full = self._disk.measured(reading, self._process.clock())
            self._spool.measured(*self._attempts.spooled(), reading.total_bytes)
            refused = self._disk.refusal or self._spool.refusal
            if refused != told:
                told = refused
                words = "no new work is taken" if told else "new work is taken again"
                LOG.warning(words, extra=fields(why=told))
            if full:
                await self._fail_for_disk()
            await self._fail_for_claims()
            await self._links.workshop.trim(short=self._disk.short)
            await self._replace_outdated()
            await self._say_condition()
            await self._say_bundles()
            await asyncio.sleep(_DISK_SECONDS)

    def _condition(self) -> NodeCondition:
        return NodeCondition(
            self._disk.refusal
            or self._spool.refusal
            or refusal(self._facts.temperatures)
            or self._lacks_sandboxes(),
            self._links.workshop.kept(),
            self._keeper.version,
            (self._streams.made or "").partition(" ")[0],
            self._outdated().sentence,
            self._facts.heat,
        )

    def _lacks_sandboxes(self) -> str:
        """Why the keeper cannot start programs as this node has to; empty if it can."""
        if self._keeper.knows_sandboxes or self._links.sandbox.default is SandboxLevel.NONE:
            return ""
        return (
            f"its keeper is of version {self._keeper.version or 'unknown'}, which keeps no job from another: new work "
            "is taken once what runs under it has ended and it was replaced"
        )

    def _outdated(self) -> Outdated:
        return Outdated.of(
            self._process.version,
            self._keeper.version,
            self._links.stream_worker.made,
            self._streams.made,
        )

    async def _replace_outdated(self) -> None:
        """Have what is outdated replaced as soon as it is idle; the keeper takes the worker along."""
        outdated = self._outdated()
        if outdated.sentence != self._said.outdated:
            words = "a part is outdated" if outdated.sentence else "no part is outdated any more"
            LOG.warning(words, extra=fields(why=outdated.sentence))
        moved = self._introduced != self._streams.address
        begun = self._streams.listening and not self._introduced_listening
        if self._introduced is not None and (moved or begun):
            # Also where it was nowhere: else no lane to this node would ever be dialled. And where it listens only
            # now: the controller looks there when a session begins, so as to see when the worker is gone.
            self._introduced = None
            await self._session_driver.post(Moved())
        if outdated.keeper:
            await self._attempts_driver.post(events.KeeperOutdated(self._keeper.instance))
        elif outdated.stream_worker:
            await self._attempts_driver.post(events.StreamWorkerOutdated())

    async def _say_condition(self) -> None:
        """Say how the node stands, if that is news; a Hello says it, too."""
        condition = self._condition()
        if condition != self._said:
            self._said = condition
            await self._say(condition)

    async def _say_bundles(self) -> None:
        """Say which bundles are here, if that is news; a Hello says it, too."""
        held = frozenset(self._links.workshop.bundles())
        if held != self._held:
            self._held = held
            await self._say(BundlesHeld(held))

    async def _watch_facts(self) -> None:
        """Look at the machine now and then, and whenever the controller asks, until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_FACTS_SECONDS):
                    await self._facts_wanted.wait()
            asked = self._facts_wanted.is_set()
            self._facts_wanted.clear()
            window = WINDOW_SECONDS if asked else 0.0
            facts = self._facts = await self._links.facts.read(window_seconds=window)
            await self._say_condition()
            if asked or worth_telling(self._facts_told, facts):
                self._facts_told = facts
                await self._say(facts)

    async def _fail_for_claims(self) -> None:
        """Fail attempts that have written more than they claim, where that binds them."""
        begun = self._process.clock()
        if begun < self._claims_at:
            return
        folders = [
            ClaimedFolder(
                record.ref,
                self._services.folder(record.ref).path,
                record.assignment.job.resources.disk_bytes,
            )
            for record in self._attempts.standing_in(Phase.RUNNING)
            if self._is_bound(record.assignment.job)
        ]
        if not folders:
            return
        uses = await self._links.disk.claimed(folders)
        self._claims_at = next_look(begun, self._process.clock(), _DISK_SECONDS)
        for folder, use in zip(folders, uses, strict=True):
            failed = beyond_claim(folder, use)
            if failed is not None:
                why = fields(name=folder.ref.name, why=failed.reason.message)
                LOG.warning("an attempt is failed for what it has written", extra=why)
                await self._attempts_driver.post(failed)

    def _is_bound(self, job: Job) -> bool:
        """Whether a job is bound by the bytes of files that it claims."""
        level = self._links.sandbox.level_for(job.sandbox.level)
        if level is None or not job.resources.disk_bytes:
            return False
        return Claim.DISK in binding_claims(job.sandbox, level)

    async def _fail_for_disk(self) -> None:
        if self._links.workshop.kept():
            # What people may want to look at goes before what runs.
            while self._links.workshop.kept():
                await self._links.workshop.trim(short=True)
            return
        archiving = self._attempts.standing_in(*ARCHIVING)
        if waiting := [record.ref for record in archiving if record.keeping_logs]:
            # Then what has ended, and only waits for the archive to take what it printed.
            for ref in waiting:
                await self._attempts_driver.post(events.DiskFull(ref, _NO_ROOM_FOR_LOGS))
            return
        able = [record.ref for record in self._attempts.standing_in(*FAILS_FOR_ITS_DISK)]
        uses = await self._links.disk.folders(
            (ref, self._services.folder(ref).path) for ref in able
        )
        failed = self._disk.choose(uses, self._process.clock())
        if failed is not None:
            why = fields(name=failed.ref.name, why=failed.reason.message)
            LOG.warning("an attempt is failed for the disk", extra=why)
            await self._attempts_driver.post(failed)

    # ---- the session

    def _act_on_session(
        self, effect: session_effects.SessionEffect
    ) -> Coroutine[Any, Any, None] | None:
        match effect:
            case session_effects.Write():  # the most frequent first
                self._link.write(effect)
            case session_effects.Confirmed(messages):
                return self._confirmed(iter(messages))
            case session_effects.Deliver(message, delivery):
                return self._deliver(message, delivery)
            case session_effects.LeaseRenewed(until, lease_seconds):
                if self._lease.renew(until, lease_seconds):
                    self._renew_leases()
            case session_effects.Dial(link, address):
                LOG.debug("dialling", extra=fields(controller=address))
                self._dialled = address
                self._link.dial(link, address)
            case session_effects.HangUp(reason):
                LOG.warning("the session is given up", extra=fields(reason=reason))
                self._link.hang_up()
            case session_effects.Follow(followed):
                # Asked for here and now: what it wants is journalled later, so never without this.
                self._spawn(_durable(self._journal.note(FOLLOWED, followed_text(followed))))
            case session_effects.Quarantined(reason):
                LOG.error(
                    "quarantined: the controller is not followed, and everything stays as it is",
                    extra=fields(reason=reason),
                )
            case session_effects.Opened(welcome):
                LOG.info(
                    "session opened",
                    extra=fields(
                        controller=welcome.controller_id, lease_seconds=welcome.lease_seconds
                    ),
                )
                self._contents.wanted = welcome.takes_contents
                self._note_controller()
                self._logs.session_opened()
                self._spawn(self._streams.say_again())
                self._spawn(self._addresses.say_again())
                return self._attempts_driver.hand(events.SessionOpened())
            case session_effects.Closed(reason):
                LOG.warning("session closed", extra=fields(reason=reason))
                self._logs.session_closed()
            case _:
                assert_never(effect)
        return None

    def _renew_leases(self) -> None:
        """Let what may not run twice run on, for as long as it is not replaced."""
        for record in self._attempts.standing_in(Phase.RUNNING):
            if record.assignment.job.placement is Placement.AT_MOST_ONE_RUNNING:
                self._spawn(self._renew_lease(record.ref))

    async def _renew_lease(self, ref: AttemptRef) -> None:
        # A keeper that is gone has taken the program with it; one that ended needs no lease.
        with contextlib.suppress(KeeperError):
            await self._keeper.renew_lease(keeper_id(ref), self._lease.program_until)

    def _confirmed(self, messages: Iterator[FromAgent]) -> Coroutine[Any, Any, None] | None:
        """Let go of what the controller has committed; what is returned waits for room, and goes on."""
        for message in messages:
            match message:
                case Observation():
                    waits = self._acknowledged(message)
                    if waits is not None:
                        return self._confirm_others(waits, messages)
                case LogPiece():
                    self._logs.confirm(message)
                case Hello():
                    return self._confirmed(chain(message.attempts, messages))
                case _:
                    pass  # nothing waits for it
        return None

    async def _confirm_others(
        self, waits: Coroutine[Any, Any, None] | None, messages: Iterator[FromAgent]
    ) -> None:
        while waits is not None:
            await waits
            waits = self._confirmed(messages)

    def _acknowledged(self, observation: Observation) -> Coroutine[Any, Any, None] | None:
        if not observation.state.terminal:
            return None
        return self._attempts_driver.hand(events.Acknowledged(observation.ref, observation.state))

    def _deliver(
        self,
        message: Desired
        | UploadsGranted
        | FilesGranted
        | Refused
        | Fenced
        | Trust
        | CertificateIssued
        | FactsWanted
        | BundlesWanted,
        delivery: int,
    ) -> Coroutine[Any, Any, None] | None:
        match message:
            case Desired():
                known, workshop = self._attempts.records, self._links.workshop
                at_hand = frozenset(
                    one.ref
                    for one in message.assignments
                    if one.ref not in known and workshop.at_hand(one)
                )
                return self._attempts_driver.hand(
                    events.DesiredChanged(message, delivery, self._process.wall(), at_hand)
                )
            case UploadsGranted():
                return self._attempts_driver.hand(message)
            case FilesGranted():
                self._addresses.take(message)
            case Refused():
                _refused(message)
            case Fenced(ref, text):
                _refused(Refused(ref, str(ReasonCode.FENCED), text))
                return self._attempts_driver.hand(message)
            case FactsWanted():
                self._facts_wanted.set()
            case BundlesWanted():
                self._spawn(self._want(message))
            case Trust() | CertificateIssued():
                if self._upkeep is not None:
                    self._upkeep.take(message)
            case _:
                assert_never(message)
        return None

    async def _want(self, wanted: BundlesWanted) -> None:
        """Fetch and keep bundles; recorded first, so that they are kept after a restart without network."""
        digests = " ".join(one.digest for one in wanted.bundles)
        if digests != self._kept:
            self._kept = digests
            await self._journal.note(BUNDLES, digests)
        self._links.workshop.want(wanted)

    async def _say(self, message: FromAgent) -> None:
        await self._session_driver.post(Say(message))

    def _hello(self) -> Hello:
        config = self._config
        self._introduced = self._streams.address
        self._introduced_listening = self._streams.listening
        self._facts_told = self._facts
        self._held = frozenset(self._links.workshop.bundles())
        return Hello(
            node=config.name,
            agent_id=self._agent_id,
            agent_version=self._process.version,
            capacity=config.capacity,
            labels=config.labels,
            architecture=config.architecture,
            stream_address=self._streams.address,
            member_name=config.name if config.gossip else "",
            attempts=self._attempts.observations(),
            bundles=self._held,
            instance_id=self._instance_id,
            followed=self._session.followed,
            condition=self._condition(),
            says_holds=True,
            takes_lanes=True,
            protocols=self._protocols,
            facts=self._facts,
            features=frozenset(Feature),
            sandbox=self._links.sandbox,
        )

    async def _find_controllers(self) -> None:
        """Tell the session which controllers it may dial, once the stream worker says where it is."""
        if not await self._streams.wait_ready(_STREAMS_READY_SECONDS):
            LOG.warning("the stream worker is not there; jobs without streams can run")
        async with contextlib.aclosing(self._links.controllers()) as found:
            async for addresses in found:
                # One that was away while keys of gossip were rotated hears of no controller by gossip, and
                # only a session brings the new keys. What answers there has to prove itself all the same.
                served = (self._served_at,) if self._served_at and self._links.cluster else ()
                known = tuple(dict.fromkeys((*addresses, *served)))
                await self._session_driver.post(ControllersKnown(known))

    def _note_controller(self) -> None:
        """Remember where the session is that has opened."""
        if self._links.cluster and self._dialled != self._served_at:
            self._served_at = self._dialled
            self._spawn(_durable(self._journal.note(CONTROLLER, self._served_at)))

    def _spawn(self, running: Coroutine[Any, Any, None]) -> asyncio.Future[None]:
        if self._group is None:
            running.close()
            raise AssertionError("nothing happens before the agent runs")
        if self._ending:
            # What runs is cancelled, and nothing would end this one.
            running.close()
            never = asyncio.get_running_loop().create_future()
            never.cancel()
            return never
        return self._group.create_task(running)


def _refused(refused: Refused) -> None:
    LOG.warning(
        "the controller refused",
        extra=fields(reason=refused.reason, message=refused.message, ref=refused.ref),
    )


async def _asked(dismissal: Awaitable[None]) -> None:
    # What did not take it is said to be outdated again, and asked again.
    with contextlib.suppress(KeeperError):
        await dismissal


async def _durable(done: Awaitable[None]) -> None:
    await done
