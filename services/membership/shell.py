"""The asyncio shell: one UDP socket, one TCP listener, one timer around the machine.

It decides nothing about membership. It is not built on `services.runtime.driver`, because a
datagram is handled where it is read: a task switch for each would double what a member costs.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Final, Self, assert_never

from services.membership import effects, events
from services.membership import message as wire
from services.membership.change_watch import ChangeWatch
from services.membership.codec import MessageCodec
from services.membership.config import GossipConfig
from services.membership.counters import Counters
from services.membership.endpoint import bind_both, parse_address, resolve
from services.membership.keyring import Keyring
from services.membership.machine import SwimMachine
from services.membership.member import Member, MemberChange
from services.membership.packet import PacketFormat
from services.membership.profile import Profile
from services.membership.refusal import DropReason, RefusedError
from services.membership.serf.effects import (
    EventHeard,
    KeyringChanged,
    QueryAnswered,
    QueryHeard,
    QueryOver,
    SerfEffect,
)
from services.membership.serf.machine import SerfMachine
from services.membership.serf.message import decode_user_state, slices
from services.membership.serf.shell import SerfShell
from services.membership.stream import StreamFormat
from services.membership.stream_transport import StreamTransport
from services.membership.tags import encode_tags
from services.runtime.outward import outward_host

_DATAGRAM_BYTES: Final = 65536
_DATAGRAMS_A_TURN: Final = 64
_STREAMS_MAX: Final = 128
_ACCEPT_PAUSE_SECONDS: Final = 0.1
_SLICE: Final = 128
_LEAVE_LINGER_SECONDS: Final = 1.0
_SEEK_FIRST_SECONDS: Final = 1.0
_EPOCH_2020: Final = 1_577_836_800


class NotRunningError(RuntimeError):
    """Something was asked of a gossip whose sockets are closed."""


class GossipShell:
    """A member of a cluster, as long as `run` runs.

    Args:
        config: Identity, address, timing, keys.
        clock: Monotonic seconds.
        wall: Seconds since 1970, for the first incarnation only.
        rng: The source of chance for timing and choice; nonces come from the system.
        log: Where it speaks.
    """

    def __init__(
        self,
        config: GossipConfig,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        rng: random.Random | None = None,
        log: logging.Logger | None = None,
    ) -> None:
        self._config = config
        self._clock = clock
        self._wall = wall
        self._rng = rng or random.Random()
        self._log = log or logging.getLogger("shoal.membership")
        self._timing = config.timing()
        self._meta = encode_tags(config.tags)
        self._counters = Counters(self._log, config.name)
        codec = MessageCodec(compact=config.compact)
        self._codec = codec
        keyring = config.keyring
        self._packets = PacketFormat(codec, keyring, config.label, nonce=os.urandom)
        self._streams = StreamTransport(
            StreamFormat(codec, keyring, config.label, nonce=os.urandom)
        )
        self._datagrams: socket.socket | None = None
        self._listener: socket.socket | None = None
        self._node: SerfMachine | None = None
        self._serf: SerfShell | None = None
        self._swim: SwimMachine | None = None
        self._tasks: asyncio.TaskGroup | None = None
        self._open_streams = 0
        self._accept_again: asyncio.TimerHandle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = float("inf")
        self._failed: asyncio.Future[None] | None = None
        self._departed = asyncio.Event()
        self._gossiped = asyncio.Event()
        self._watches: set[ChangeWatch[MemberChange]] = set()
        self._joined = False

    # ---- life -----------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        config = self._config
        self._datagrams, self._listener, port = bind_both(config.bind_host, config.bind_port)
        try:
            address = await self._advertised(port)
            start = int(self._wall()) - _EPOCH_2020
            profile = Profile(
                name=config.name,
                address=address,
                meta=self._meta,
                versions=wire.SERF_VERSIONS if config.serf else wire.MEMBERLIST_VERSIONS,
                incarnation=max(1, start) if config.incarnation is None else config.incarnation,
                preset=self._timing,
                codec=self._codec,
                packet_bytes=lambda: self._packets.budget,
                heal_interval_seconds=config.heal_interval_seconds,
                lifeguard=config.lifeguard,
            )
            self._swim = SwimMachine(profile, self._rng, self._clock())
        except BaseException:
            self._close()
            raise
        if config.serf:
            self._node = SerfMachine(self._swim, config.keyring, self._timing, self._rng)
            self._serf = SerfShell(self._node, self._clock, self._perform_and_arm)
        self._failed = asyncio.get_running_loop().create_future()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._close()

    async def run(self) -> None:
        """Be a member until cancelled.

        Raises:
            NotRunningError: It was not entered, or runs already.
        """
        loop = asyncio.get_running_loop()
        if self._datagrams is None or self._listener is None or self._failed is None:
            raise NotRunningError("gossip is closed; enter it with `async with` before `run`")
        if self._tasks is not None:
            raise NotRunningError(f"gossip of {self._config.name!r} runs already")
        datagrams, listener = self._datagrams, self._listener
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            try:
                loop.add_reader(datagrams, self._readable)
                loop.add_reader(listener, self._acceptable, listener)
                if self._config.seeds:
                    tasks.create_task(self._seek())
                self._arm()
                await self._failed
            finally:
                # Before the group ends: nothing may start in it any more.
                self._tasks = None
                if self._accept_again is not None:
                    self._accept_again.cancel()
                loop.remove_reader(datagrams)
                loop.remove_reader(listener)
                if self._timer is not None:
                    self._timer.cancel()
                    self._timer_at = float("inf")

    # ---- what a user asks -----------------------------------------------------------------------

    @property
    def address(self) -> wire.Address:
        """Where it really listens."""
        if self._datagrams is None:
            raise NotRunningError("gossip is closed; enter it with `async with` first")
        host, port = self._datagrams.getsockname()[:2]
        return wire.Address(str(host), int(port))

    @property
    def local(self) -> Member:
        """This member's own record."""
        return self._machine.me

    @property
    def awareness(self) -> int:
        """This member's health score: 0 is well, 7 is as ill as can be."""
        return self._machine.awareness

    @property
    def revision(self) -> int:
        """Number of the last change."""
        return self._machine.states.revision

    @property
    def keyring(self) -> Keyring:
        """The cluster's keys; installing, using and removing take effect at once."""
        return self._config.keyring

    @property
    def counters(self) -> Mapping[str, int]:
        """What was sent, received and dropped, the drops by reason."""
        counts = dict(self._counters.counts)
        counts["stream_rescues"] = self._machine.stream_rescues
        counts["broadcasts_waiting"] = self._machine.queued
        return counts

    @property
    def serf(self) -> SerfShell:
        """Serf's layer: events, queries, keys, distances.

        Raises:
            NotRunningError: It was not entered, or speaks plain memberlist.
        """
        if self._serf is None:
            raise NotRunningError("no Serf layer; enter the gossip, configured with serf=True")
        return self._serf

    def members(self, *, all_states: bool = False) -> Sequence[Member]:
        """List alive and suspect members by name; with `all_states` dead and left ones too."""
        found = self._machine.members(all_states=all_states)
        return sorted(found, key=lambda member: member.name)

    @contextlib.asynccontextmanager
    async def watch(self) -> AsyncIterator[ChangeWatch[MemberChange]]:
        """Iterate over the changes from here on; read `members` inside, for where they start."""
        watch: ChangeWatch[MemberChange] = ChangeWatch(self._config.watch_size)
        self._watches.add(watch)
        try:
            yield watch
        finally:
            self._watches.discard(watch)
            watch.end()

    async def join(self, addresses: Sequence[str]) -> int:
        """Exchange states with each of `host[:port]`; returns how many answered.

        Raises:
            ValueError: One of them is no address.
        """
        for address in addresses:
            parse_address(address)
        async with asyncio.TaskGroup() as tasks:
            tries = [tasks.create_task(self._try_join(address)) for address in addresses]
        return sum(attempt.result() for attempt in tries)

    async def leave(self, deadline_seconds: float) -> None:
        """Say goodbye, so that the others show this member as left; `run` has to run meanwhile."""
        now = self._clock()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(deadline_seconds):
                if self._node is not None and self._machine.states.table.reachable > 1:
                    key, out = self._node.announce_leave(now)
                    self._perform(out)
                    await self._until_sent(key, deadline_seconds / 2)
                self._handle(events.Leave())
                await self._departed.wait()
                # Answer for a moment, while the goodbye reaches the last ones.
                await asyncio.sleep(min(_LEAVE_LINGER_SECONDS, deadline_seconds / 4))

    async def set_tags(self, tags: Mapping[str, str]) -> None:
        """Announce new tags.

        Raises:
            ValueError: They need more than 512 bytes.
        """
        self._handle(events.SetMeta(encode_tags(tags)))

    # ---- the machine ----------------------------------------------------------------------------

    @property
    def _machine(self) -> SwimMachine:
        if self._swim is None:
            raise NotRunningError("gossip is closed; enter it with `async with` first")
        return self._swim

    def _handle(self, event: events.Event) -> None:
        self._perform_and_arm((self._node or self._machine).handle(event, self._clock()))

    def _perform_and_arm(self, out: Iterable[SerfEffect]) -> None:
        self._perform(out)
        self._arm()

    def _tick(self) -> None:
        self._timer = None
        self._timer_at = float("inf")
        try:
            self._perform((self._node or self._machine).tick(self._clock()))
            self._gossiped.set()
            self._arm()
        except Exception as error:  # noqa: BLE001 a callback has no caller: `run` raises it
            if self._failed is not None and not self._failed.done():
                self._failed.set_exception(error)

    def _arm(self) -> None:
        """Set the timer, unless it goes off early enough already."""
        deadline = (self._node or self._machine).deadline()
        if deadline is None or deadline >= self._timer_at or self._tasks is None:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = deadline
        delay = max(0.0, deadline - self._clock())
        self._timer = asyncio.get_running_loop().call_later(delay, self._tick)

    def _perform(self, out: Iterable[SerfEffect]) -> None:
        for effect in out:
            match effect:
                case effects.SendPacket():
                    self._send(effect)
                case effects.Changed():
                    self._changed(effect.change)
                case effects.DialPing():
                    self._spawn(partial(self._ping, effect))
                case effects.DialPushPull():
                    self._spawn(partial(self._push_pull, effect))
                case effects.Dropped():
                    self._counters.drop(effect.reason, effect.detail, self._clock())
                case effects.Departed():
                    self._departed.set()
                case effects.NameConflict():
                    self._counters.add("name_conflicts")
                case effects.UserReceived():
                    self._counters.add("user_messages")
                case effects.RoundTripMeasured():
                    pass
                case EventHeard() | QueryHeard() | QueryAnswered() | QueryOver() | KeyringChanged():
                    if self._serf is not None:
                        self._serf.take(effect)
                case _:
                    assert_never(effect)

    def _changed(self, change: MemberChange) -> None:
        member = change.member
        self._log.info(
            "%s: member %s %s (%s, incarnation %d)",
            self._config.name,
            member.name,
            change.kind,
            member.endpoint,
            member.incarnation,
        )
        for watch in self._watches:
            watch.push(change)
        if self._serf is not None:
            self._serf.take(change)

    # ---- datagrams ------------------------------------------------------------------------------

    def _send(self, effect: effects.SendPacket) -> None:
        if self._datagrams is None:
            return
        data = self._packets.wrap(effect.messages, checksum=effect.checksum, secret=effect.secret)
        try:
            self._datagrams.sendto(data, effect.address)
        except BlockingIOError:
            self._counters.add("send_buffer_full")
        except (OSError, ValueError, OverflowError) as error:
            detail = f"{effect.address}: {error}"
            self._counters.drop("send_failed", detail, self._clock())
            # Not from within the machine's own call.
            asyncio.get_running_loop().call_soon(self._send_failed, effect.address)
        else:
            self._counters.add("packets_sent")
            self._counters.add("bytes_sent", len(data))

    def _send_failed(self, address: wire.Address) -> None:
        if self._datagrams is not None:
            self._handle(events.SendFailed(address))

    def _readable(self) -> None:
        for _ in range(_DATAGRAMS_A_TURN):
            if self._datagrams is None:
                return
            try:
                data, source = self._datagrams.recvfrom(_DATAGRAM_BYTES)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self._counters.drop("receive_failed", str(error), self._clock())
                return
            self._packet(data, wire.Address(source[0], source[1]))

    def _packet(self, data: bytes, source: wire.Address) -> None:
        self._counters.add("packets_received")
        self._counters.add("bytes_received", len(data))
        try:
            messages, refused, sealed = self._packets.unwrap(data)
            for reason in refused:
                self._counters.drop(reason, f"part of a packet from {source}", self._clock())
            if messages:
                self._handle(events.PacketReceived(source, messages, sealed))
        except RefusedError as error:
            self._counters.drop(error.reason, f"{error.detail}, from {source}", self._clock())
        except Exception:  # noqa: BLE001 one attempt; the trace is logged
            # One packet must not end the process, whatever it uncovered.
            self._counters.add("dropped_internal")
            self._log.exception("packet from %s failed: %s", source, data[:64].hex())

    # ---- streams --------------------------------------------------------------------------------

    def _spawn(self, work: Callable[[], Awaitable[None]]) -> asyncio.Task[None] | None:
        """Run an exchange beside the others, if there are not too many."""
        if self._tasks is None or self._open_streams >= _STREAMS_MAX:
            self._counters.drop(
                DropReason.OVERLOADED, f"{_STREAMS_MAX} streams are open", self._clock()
            )
            return None
        return self._tasks.create_task(self._guard(work))

    async def _guard(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run one exchange within its deadline; its failure is counted, and ends nothing else."""
        self._open_streams += 1
        try:
            async with asyncio.timeout(self._timing.stream_timeout_seconds):
                await work()
        except RefusedError as error:
            self._counters.drop(error.reason, error.detail, self._clock())
        except (OSError, TimeoutError):
            self._counters.add("stream_failures")
        except Exception:  # noqa: BLE001 one attempt; the trace is logged
            self._counters.add("dropped_internal")
            self._log.exception("a stream failed")
        finally:
            self._open_streams -= 1

    def _acceptable(self, listener: socket.socket) -> None:
        """Take one connection.

        Not with `sock_accept` in a task: a cancellation between its result and the task's next
        step loses the connection.
        """
        try:
            connection, source = listener.accept()
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            # Out of descriptors, mostly: let others finish.
            self._counters.drop("accept_failed", str(error), self._clock())
            loop = asyncio.get_running_loop()
            loop.remove_reader(listener)
            self._accept_again = loop.call_later(
                _ACCEPT_PAUSE_SECONDS, loop.add_reader, listener, self._acceptable, listener
            )
            return
        connection.setblocking(False)
        address = wire.Address(source[0], source[1])
        task = self._spawn(partial(self._answer, connection, address))
        if task is None:
            connection.close()
        else:
            # A callback, for a task that is cancelled before its first step runs no `finally`.
            task.add_done_callback(lambda _: connection.close())

    async def _answer(self, connection: socket.socket, source: wire.Address) -> None:
        """Answer one stream."""
        streams = self._streams
        try:
            message, sealed = await streams.read(connection, dialled=False)
        except RefusedError as error:
            if error.reason is not DropReason.WRONG_LABEL:
                with contextlib.suppress(OSError):
                    await streams.write(connection, wire.ErrorReply(str(error)), dialled=False)
            raise
        match message:
            case wire.Ping():
                if message.node and message.node != self._config.name:
                    detail = f"stream ping for {message.node}"
                    raise RefusedError(DropReason.WRONG_NODE, detail)
                await streams.write(connection, wire.Ack(message.sequence), dialled=False)
            case wire.PushPull():
                # First our state, then the merge: what the remote just said is no news to it.
                await streams.write(connection, await self._state(join=False), dialled=False)
                await self._merge(message, source)
            case wire.User():
                self._handle(events.PacketReceived(source, (message,), sealed))
            case wire.ErrorReply():
                raise RefusedError(DropReason.PEER_ERROR, f"{source} says: {message.error}")
            case wire.Ack():
                raise RefusedError(DropReason.UNKNOWN_TYPE, "stream begins with an ack")
            case _:
                assert_never(message)

    async def _ping(self, effect: effects.DialPing) -> None:
        """Ping over a stream, for a member that datagrams did not reach."""
        async with (
            asyncio.timeout(max(0.0, effect.deadline - self._clock())),
            self._streams.dial(effect.address) as connection,
        ):
            ping = wire.Ping(effect.sequence, effect.node)
            await self._streams.write(connection, ping, dialled=True)
            answer, _ = await self._streams.read(connection, dialled=True)
        if isinstance(answer, wire.Ack) and answer.sequence == effect.sequence:
            self._handle(events.StreamAnswered(effect.sequence, effect.node))

    async def _push_pull(self, effect: effects.DialPushPull) -> None:
        await self._exchange(effect.address, join=effect.join)
        if effect.join and self._node is not None:
            self._perform_and_arm(self._node.announce_join(self._clock()))

    async def _exchange(self, address: wire.Address, *, join: bool) -> None:
        """Exchange full states with a member that we dial."""
        async with self._streams.dial(address) as connection:
            await self._streams.write(connection, await self._state(join=join), dialled=True)
            answer, _ = await self._streams.read(connection, dialled=True)
        if isinstance(answer, wire.ErrorReply):
            raise RefusedError(DropReason.PEER_ERROR, f"{address} says: {answer.error}")
        if not isinstance(answer, wire.PushPull):
            detail = f"{address} answered with {type(answer).__name__}, not its state"
            raise RefusedError(DropReason.UNKNOWN_TYPE, detail)
        await self._merge(answer, address)
        self._joined = True

    async def _state(self, *, join: bool) -> wire.PushPull:
        """Collect our records, a slice at a time."""
        machine = self._machine
        names = machine.names()
        nodes: list[wire.PushNodeState] = []
        for start in range(0, len(names), _SLICE):
            nodes += machine.local_state(names[start : start + _SLICE])
            await asyncio.sleep(0)
        user_state = self._node.user_state() if self._node is not None else b""
        return wire.PushPull(tuple(nodes), user_state, join)

    async def _merge(self, state: wire.PushPull, source: wire.Address) -> None:
        """Take a remote's state, a slice at a time."""
        refusal = self._machine.refusal(state.nodes)
        if refusal is not None:
            raise RefusedError(DropReason.INCOMPATIBLE, f"{source}: {refusal}")
        for start in range(0, len(state.nodes), _SLICE):
            self._handle(events.RecordsReceived(state.nodes[start : start + _SLICE]))
            await asyncio.sleep(0)
        user_state = decode_user_state(state.user_state) if self._node is not None else None
        if self._node is None or user_state is None:
            return
        for part in slices(user_state, 8 * _SLICE):
            self._perform_and_arm(self._node.merge_user_state(part, self._clock()))
            await asyncio.sleep(0)

    # ---- joining and leaving --------------------------------------------------------------------

    async def _try_join(self, text: str) -> bool:
        try:
            async with asyncio.timeout(self._timing.stream_timeout_seconds):
                address = await resolve(text)
                await self._exchange(address, join=True)
        except (OSError, TimeoutError, RefusedError) as error:
            reason = str(error) or type(error).__name__
            self._log.warning("%s cannot join %s: %s", self._config.name, text, reason)
            return False
        if self._node is not None:
            self._perform_and_arm(self._node.announce_join(self._clock()))
        return True

    async def _seek(self) -> None:
        """Join the seeds, and join those again that went missing, at a low rate."""
        pause = _SEEK_FIRST_SECONDS
        rest = max(self._config.heal_interval_seconds, _SEEK_FIRST_SECONDS)
        while True:
            missing = await self._missing_seeds()
            if missing and not self._machine.states.leaving:
                few = self._rng.sample(missing, min(3, len(missing)))
                await self.join(few)
            pause = rest if self._joined else min(2 * pause, rest)
            await asyncio.sleep(pause * (0.5 + self._rng.random()))

    async def _missing_seeds(self) -> list[str]:
        present = {member.endpoint for member in self._machine.members()}
        missing: list[str] = []
        for seed in self._config.seeds:
            try:
                known = await resolve(seed) in present
            except OSError:
                known = False
            if not known:
                missing.append(seed)
        return missing

    async def _until_sent(self, key: str, seconds: float) -> None:
        """Wait until a broadcast was sent often enough."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._machine.waits(key):
                    self._gossiped.clear()
                    await self._gossiped.wait()

    async def _advertised(self, port: int) -> wire.Address:
        if not self._config.advertise:
            towards = (*self._config.seeds, *self._config.peers)
            host = await asyncio.to_thread(outward_host, self._config.bind_host, towards)
            return wire.Address(host, port)
        return await resolve(self._config.advertise, port)

    def _close(self) -> None:
        for watch in self._watches:
            watch.end()
        if self._serf is not None:
            self._serf.close()
        for opened in (self._datagrams, self._listener):
            if opened is not None:
                opened.close()
        self._datagrams = self._listener = None
