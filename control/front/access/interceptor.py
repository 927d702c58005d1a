"""Asks of each call whether its caller may make it, before the service sees anything of it.

Rule: the identity is what the handshake proved (`services.runtime.peer`); nothing that a message says makes it
another one. A call is let in by `decide` alone, and what it does not let in is counted, and told once a minute.

What lasts is looked at again when other certificates or authorities are believed: a call that was let in an hour ago
need not be let in now. A handshake alone would let it go on for as long as its connection stands.

Example: `viewer/lab/ann` submits. The table says that SubmitPipeline takes a submitter, so the call ends with
PERMISSION_DENIED and NOT_ALLOWED, and `shoal.caller.refused` says within a minute that it was tried.
"""

import asyncio
import inspect
import logging
from collections import Counter
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Final, Protocol, cast

import grpc
import grpc.aio
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from control.core.call_note import CallNote
from control.core.errors import ControlError
from control.front.access.checked_call import CheckedCall
from control.front.access.quotas import Quotas
from control.front.access.refused_calls import RefusalCount, RefusedCalls
from control.front.rpc_status import invalid
from services.identity.access.caller import USER_KEY, Caller
from services.identity.access.decision import CallRefused, decide
from services.identity.access.rule import Named, Rule, named, values
from services.identity.access.rules import RULES
from services.runtime.log import CountedLog, fields
from services.runtime.peer import HandshakeContext, Peer, host_of, peer_of
from services.runtime.rpc import KINDS, Behavior, Method, RpcError, rpc_error
from shoal.identity import Role
from shoal.v1 import identity_service_pb2

LOG = logging.getLogger(__name__)

TELL_SECONDS: Final = 60.0
NOBODY: Final = "nobody"
"""How a caller is counted that proves no identity."""

_UNKNOWN_CALLER: Final = frozenset({"OTHER_CLUSTER"})
_LASTING: Final = frozenset(KINDS) - {"unary_unary"}

Context = grpc.aio.ServicerContext[Any, Any]


class Audit(Protocol):
    """Where calls are told of."""

    async def note_call(self, note: CallNote, name: str) -> None:
        """Tell of a call that changed something, by the name of what it changed."""
        ...

    async def note_refused(self, caller: str, calls: RefusedCalls) -> None:
        """Tell of calls of one caller that were refused since the last telling."""
        ...


@dataclass(eq=False, slots=True)
class _Lasting:
    """A call that lasts, and whether it was ended here."""

    task: "asyncio.Task[Any]"
    caller: Caller
    peer: Peer
    why: RpcError | None = None


class AccessInterceptor(grpc.aio.ServerInterceptor):
    """Lets calls in, or refuses them; let `run` run beside the server.

    Args:
        cluster: id of this cluster.
        revoked: says whether the certificate of a serial number is revoked.
        signed: says whether a certificate (PEM) was signed by an authority that is believed.
        quotas: what each caller may ask for.
        audit: where calls are told of.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        cluster: str,
        revoked: Callable[[int], bool],
        signed: Callable[[bytes], bool],
        quotas: Quotas,
        audit: Audit,
        clock: Callable[[], float],
    ) -> None:
        self._cluster = cluster
        self._revoked = revoked
        self._signed = signed
        self._quotas = quotas
        self._audit = audit
        self._refusals = RefusalCount()
        self._lasting: set[_Lasting] = set()
        self._log = CountedLog(LOG, clock)
        self.calls = Counter[str]()
        """Calls that were let in, by the name of their method."""
        self.refused = Counter[str]()
        """Calls that were refused, by reason."""

    async def run(self, changes: AsyncIterable[None]) -> None:
        """End what is revoked, and tell what was refused, until cancelled.

        Args:
            changes: yields whenever other certificates or authorities are believed than before.
        """
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._tell_on())
            async for _ in changes:
                self.end_revoked()

    async def _tell_on(self) -> None:
        while True:
            await asyncio.sleep(TELL_SECONDS)
            await self.tell_refused()

    def end_revoked(self) -> None:
        """End the calls whose certificate is revoked, or whose authority is believed no more."""
        for call in self._lasting:
            if call.why is None and (why := self._distrust(call.peer)):
                call.why = why
                call.task.cancel()

    async def tell_refused(self) -> None:
        """Tell what was refused since the last time; what cannot be told now is told the next time."""
        waiting = self._refusals.take()
        try:
            while waiting:
                caller = next(iter(waiting))
                await self._audit.note_refused(caller, waiting[caller])
                del waiting[caller]
        except ControlError as error:
            self._refusals.put_back(waiting)
            LOG.warning("refused calls are told later", extra=fields(why=error))

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Method]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Method:
        """Put the question before the implementation of one method."""
        method = cast("Any", await continuation(handler_call_details))
        if method is None:  # it is not implemented; gRPC answers by itself
            return None
        path = handler_call_details.method
        kind = next(kind for kind in KINDS if getattr(method, kind) is not None)
        entry = _Entry(path, RULES.get(path), kind)
        behavior = self._guarded(getattr(method, kind), entry)
        return cast("Method", method._replace(**{kind: behavior}))

    def _guarded(self, behavior: Behavior, entry: "_Entry") -> Behavior:
        async def answer(request: Any, context: Context) -> Any:
            with self._let_in(entry, context, request) as call:
                result = await behavior(
                    call.checked(request) if entry.streams else request, _served(call)
                )
            if entry.rule is not None and entry.rule.changes and not entry.rule.recorded:
                await self._note(call.note, _name_in(request, result))
            return result

        async def show(request: Any, context: Context) -> AsyncIterator[Any]:
            with self._let_in(entry, context, request) as call:
                given = call.checked(request) if entry.streams else request
                async for response in behavior(given, _served(call)):
                    yield response

        # gRPC looks at the kind of function to know whether it yields or calls write(): keep the kind.
        return show if inspect.isasyncgenfunction(behavior) else answer

    @contextmanager
    def _let_in(self, entry: "_Entry", context: Context, request: Any) -> Iterator[CheckedCall]:
        """Let a call in, for as long as its caller may be here.

        Raises:
            RpcError: it may not be made, or not any longer.
        """
        peer, caller = self._caller(entry, context)
        note = CallNote(caller.key, caller.user, entry.name, caller.address)
        first = True

        def check(message: Any) -> None:
            nonlocal first
            if first or (entry.rule is not None and entry.rule.each):
                first = False
                self._check(entry, caller, entry.named(message))
            self._count(entry, caller, message)

        with ExitStack() as stack:
            try:
                self._quotas.call(caller.key, agent=caller.identity.role is Role.NODE)
                self._check(entry, caller, Named())
                if not entry.streams:
                    check(request)
                if entry.kind in _LASTING:
                    stack.enter_context(self._quotas.watch(caller.key))
            except RpcError as error:
                self._refuse(entry, caller.described, caller.address, error)
                raise
            call = CheckedCall(context, caller, note, self._counted(check, entry, caller))
            if entry.kind in _LASTING:
                stack.enter_context(self._while_trusted(peer, caller))
            self.calls[note.method] += 1
            yield call

    def _counted(
        self, check: Callable[[Any], None], entry: "_Entry", caller: Caller
    ) -> Callable[[Any], None]:
        def counted(message: Any) -> None:
            try:
                check(message)
            except RpcError as error:
                self._refuse(entry, caller.described, caller.address, error)
                raise

        return counted

    def _caller(self, entry: "_Entry", context: Context) -> tuple[Peer, Caller]:
        """Return the peer, and the caller that it is.

        Raises:
            RpcError: it proves nothing, or what it proves is believed no more.
        """
        peer, address = peer_of(cast("HandshakeContext", context)), host_of(context.peer())
        user = next(
            (str(value) for key, value in context.invocation_metadata() or () if key == USER_KEY),
            "",
        )
        if peer is None:
            unknown = _unknown("NO_IDENTITY", f"a call of {entry.name} proves no identity")
            self._refuse(entry, NOBODY, address, unknown)
            raise unknown
        caller = Caller(peer.identity, address, user)
        if error := self._distrust(peer):
            self._refuse(entry, caller.key, address, error)
            raise error
        return peer, caller

    def _distrust(self, peer: Peer) -> RpcError | None:
        """Say why what a peer proved as it connected is believed no more; None if it is."""
        who = peer.identity.described
        if self._revoked(peer.serial):
            return _unknown(
                "REVOKED",
                f"the certificate of {who} is revoked: join again with a token, which an operator makes",
            )
        if not self._signed(peer.certificate):
            return _unknown(
                "AUTHORITY_REMOVED",
                f"the authority that signed the certificate of {who} is believed no more: connect with a "
                "certificate that was renewed since, or join again with a token",
            )
        return None

    def _check(self, entry: "_Entry", caller: Caller, request: Named) -> None:
        answer = decide(entry.rule, entry.name, self._cluster, caller, request)
        if isinstance(answer, CallRefused):
            if answer.reason in _UNKNOWN_CALLER:
                raise _unknown(answer.reason, answer.message)
            raise rpc_error(
                grpc.StatusCode.PERMISSION_DENIED,
                answer.reason,
                answer.message,
                {"caller": caller.described, "method": entry.name},
            )

    def _count(self, entry: "_Entry", caller: Caller, message: Any) -> None:
        rule = entry.rule
        if rule is not None and rule.spec:
            self._quotas.spec(caller.key, sum(one.ByteSize() for one in values(message, rule.spec)))
        if rule is not None and rule.bundle:
            self._quotas.bundle(caller.key, sum(len(one) for one in values(message, rule.bundle)))

    @contextmanager
    def _while_trusted(self, peer: Peer, caller: Caller) -> Iterator[None]:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a call is served outside of a task")
        call = _Lasting(task, caller, peer)
        self._lasting.add(call)
        try:
            yield
        except (Exception, asyncio.CancelledError):
            if call.why is None:
                raise
            if task.cancelling():
                task.uncancel()
            raise call.why from None
        finally:
            self._lasting.discard(call)

    def _refuse(self, entry: "_Entry", who: str, address: str, error: RpcError) -> None:
        # A user is what the gateway says it is, so only its own name is counted by.
        caller = who.partition(" for ")[0]
        self.refused[error.reason] += 1
        self._refusals.count(caller, entry.name, address, error.reason)
        self._log.warn("call refused", caller=who, method=entry.name, why=error.reason)

    async def _note(self, note: CallNote, name: str) -> None:
        try:
            await self._audit.note_call(note, name)
        except ControlError as error:
            LOG.error(  # noqa: TRY400 -- the message says it all
                "a call could not be told as an event",
                extra=fields(caller=note.described, method=note.method, why=error),
            )


@dataclass(frozen=True, slots=True)
class _Entry:
    """A method as it is served: its path, its rule, and which of gRPC's four kinds it is."""

    path: str
    rule: Rule | None
    kind: str

    @property
    def name(self) -> str:
        """Its name for people: `NodesService.DrainNode`."""
        service, _, method = self.path[1:].partition("/")
        return f"{service.rpartition('.')[2]}.{method}"

    @property
    def streams(self) -> bool:
        """Whether its caller sends a stream."""
        return self.kind.startswith("stream_")

    def named(self, message: Any) -> Named:
        """Read what a message names; of one that passes unread, as those of lanes do, a copy is read."""
        if self.rule is None or not (self.rule.namespace or self.rule.node):
            return Named()
        if isinstance(message, bytes):
            path = self.path[1:].replace("/", ".")
            method: Any = descriptor_pool.Default().FindMethodByName(path)
            try:
                message = message_factory.GetMessageClass(method.input_type).FromString(message)
            except DecodeError as error:
                raise invalid("INVALID_MESSAGE", f"{self.name} got no message: {error}") from error
        return named(self.rule, message)


def _served(call: CheckedCall) -> Context:
    """The context that a service gets: gRPC's, whose messages are looked at."""
    return cast("Context", call)


def _unknown(reason: str, message: str) -> RpcError:
    return rpc_error(grpc.StatusCode.UNAUTHENTICATED, reason, message)


def _name_in(request: Any, response: Any) -> str:
    """Name what a call has changed, by what its messages say of it; never a secret."""
    about = getattr(request, "identity", None)
    if about is not None:
        role = identity_service_pb2.Role.Name(about.role).removeprefix("ROLE_").lower()
        return "/".join(filter(None, (role, about.namespace, about.name)))
    made = getattr(response, "token", None) or getattr(response, "authority", None)
    for message in filter(None, (made, request, response)):
        for field in ("name", "id", "fingerprint"):
            if isinstance(found := getattr(message, field, ""), str) and found:
                return found
    return ""
