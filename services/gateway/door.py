"""Which user a caller is, how much it may ask for, and whether it may make a call: all that stands before a controller.

Rule: a caller is the user of the token in `Authorization: Bearer`, or of the session in its cookie; a cookie counts
for a call that is no GET only with the session's second word beside it. A caller with neither is `anonymous`, if the
gateway has a role for that, and else refused. What a user may is what the table of rules says of its role, by the
same function that the controller asks (`services/identity/access/decision.py`).

This is looked at before anything of a request's body is read. What the request names is looked at once it is read.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import Any, Final, Protocol

from connectrpc.interceptor import MetadataInterceptor
from connectrpc.method import StreamType
from connectrpc.request import RequestContext
from google.protobuf.message import Message

from services.gateway.config import ANONYMOUS
from services.gateway.gateway_counts import GatewayCounts
from services.gateway.open_watches import OpenWatch, OpenWatches
from services.gateway.refusal import connect_error
from services.gateway.session_file import SessionFile, is_second_word
from services.gateway.user_file import GatewayUser, UserFile, UserFileError
from services.identity.access.caller import Caller
from services.identity.access.decision import CallRefused, decide
from services.identity.access.rule import Rule, named
from services.runtime.call_rates import CallRates
from shoal.errors import ShoalError
from shoal.identity import Identity, Role

COOKIE: Final = "shoal-session"
SECOND_WORD: Final = "x-shoal-csrf"
_BEARER: Final = "bearer "
_NO_CLUSTER: Final = "none"
_REMEDY: Final = "the operator of the gateway gives a user a role with: shoal gateway allow"


class HeaderFields(Protocol):
    """The headers of a request, by their names in lower case."""

    def get(self, key: str, /) -> str | None:
        """Return the value of one."""
        ...


@dataclass(frozen=True, slots=True)
class DoorLimits:
    """What a user may ask for.

    Attributes:
        calls_per_second: how many calls it may begin a second; twice as many at once.
        watches: how many calls that last it may have open.
    """

    calls_per_second: float
    watches: int


class Door(MetadataInterceptor["OpenWatch | None"]):
    """Lets callers in, or refuses them.

    Args:
        users: those that may use the gateway.
        sessions: those of browsers that have signed in.
        anonymous: role of callers that have not; None lets none in.
        limits: what a user may ask for.
        cluster: returns the id of the cluster.
        clock: monotonic seconds.
        counts: where calls and refusals are counted.
    """

    def __init__(
        self,
        users: UserFile,
        sessions: SessionFile,
        anonymous: Role | None,
        limits: DoorLimits,
        cluster: Callable[[], str],
        clock: Callable[[], float],
        counts: GatewayCounts,
    ) -> None:
        self._users = users
        self._sessions = sessions
        self._anonymous = anonymous
        self._limits = limits
        self._cluster = cluster
        self._counts = counts
        self._rates = CallRates(limits.calls_per_second, clock)
        self.watches = OpenWatches(users, sessions, limits.watches)
        self._watch: ContextVar[OpenWatch] = ContextVar("watch that this call is")
        self._user: ContextVar[GatewayUser] = ContextVar("user of this call")

    async def on_start(self, ctx: RequestContext[Any, Any]) -> OpenWatch | None:
        """Look at the head of a call of the contract."""
        address = (ctx.client_address or "").rpartition(":")[0]
        try:
            method = f"{ctx.method.service_name.rpartition('.')[2]}.{ctx.method.name}"
            user = self.caller(ctx.request_headers, ctx.http_method, address, method)
            if ctx.method.stream_type is StreamType.SERVER_STREAM:
                watch = self.take_watch(user, ctx.request_headers)
                self._user.set(user)
                self._watch.set(watch)
                return watch
        except ShoalError as error:
            raise connect_error(error) from error
        self._user.set(user)
        return None

    async def on_end(
        self, token: OpenWatch | None, ctx: RequestContext[Any, Any], error: Exception | None, /
    ) -> None:
        """Give back the room of a call that lasted."""
        del ctx, error
        if token is not None:
            self.watches.give(token)

    def watch(self) -> OpenWatch:
        """Return the watch that the call is which this is part of."""
        return self._watch.get()

    def caller(
        self, headers: HeaderFields, http_method: str, address: str, called: str
    ) -> GatewayUser:
        """Return the user that makes a request, and count it.

        Args:
            headers: of the request.
            http_method: such as GET.
            address: host from where it comes.
            called: what it calls, one of few words: such as `NodesService.ListNodes` or `/members`.

        Raises:
            ShoalError: no user, or one that asks too often.
        """
        with self._counted():
            try:
                user = self._known(headers, http_method)
            except UserFileError as error:
                raise ShoalError("USERS", str(error), code="UNAVAILABLE") from error
            except ShoalError:
                self._count(f"address {address}", "requests that are let in nowhere")
                raise
            self._count(
                f"anonymous {address}" if not user.token_hash else user.name,
                f"calls of {user.name}",
            )
        self._counts.calls[called] += 1
        return user

    def take_watch(self, user: GatewayUser, headers: HeaderFields) -> OpenWatch:
        """Take room for a call that lasts, by the headers that let it in; `watches.give` gives it back.

        Raises:
            ShoalError: there is none.
        """
        by_token = _bearer(headers) is not None
        with self._counted():
            return self.watches.take(user, "" if by_token else session_word(headers))

    def let_in(self, rule: Rule, path: str, request: Message) -> GatewayUser:
        """Return the user of the call that this is part of, if it may make it.

        Args:
            rule: what the method takes.
            path: `/shoal.v1.NodesService/ListNodes`.
            request: what is asked.

        Raises:
            ShoalError: its role, or its namespace, is another.
        """
        user = self._user.get()
        self.check(user, rule, path, request)
        return user

    def check(self, user: GatewayUser, rule: Rule, path: str, request: Message) -> None:
        """Refuse a call that a user may not make.

        Raises:
            ShoalError: its role, or its namespace, is another.
        """
        cluster = self._cluster() or _NO_CLUSTER
        caller = Caller(Identity(cluster, user.role, user.name, user.namespace))
        method = path.rpartition(".")[2].replace("/", ".")
        decision = decide(rule, method, cluster, caller, named(rule, request), _REMEDY)
        if isinstance(decision, CallRefused):
            with self._counted():
                raise ShoalError(decision.reason, decision.message, code="PERMISSION_DENIED")

    @contextmanager
    def _counted(self) -> Iterator[None]:
        """Count what is refused in the block."""
        try:
            yield
        except ShoalError as error:
            self._counts.refused[error.reason] += 1
            raise

    def _known(self, headers: HeaderFields, http_method: str) -> GatewayUser:
        token = _bearer(headers)
        if token is not None:
            user = self._users.of_token(token)
            if user is None:
                raise ShoalError(
                    "TOKEN_UNKNOWN",
                    "the token is no user's of this gateway, or no longer: its operator makes another one with "
                    "`shoal gateway allow NAME`",
                    code="UNAUTHENTICATED",
                )
            return user
        word = session_word(headers)
        if word and (user := self._sessions.user(word)) is not None:
            if http_method not in {"GET", "HEAD"} and not is_second_word(
                word, headers.get(SECOND_WORD) or ""
            ):
                raise ShoalError(
                    "CSRF",
                    f"a call with a session needs the header {SECOND_WORD} with the word `csrf` that GET /session "
                    "answers; a program sends its token in the header Authorization instead",
                    code="PERMISSION_DENIED",
                )
            return user
        if self._anonymous is not None:
            return GatewayUser(ANONYMOUS, self._anonymous)
        raise ShoalError(
            "SIGN_IN",
            "sign in with POST /session, or send a token in the header Authorization, as Bearer; the operator of the "
            "gateway makes one with `shoal gateway allow NAME`",
            code="UNAUTHENTICATED",
        )

    def _count(self, who: str, what: str) -> None:
        seconds = self._rates.count(who)
        if seconds:
            rate = f"{self._rates.per_second:g}"
            again = f"{max(0.001, seconds):.3g}"
            raise ShoalError(
                "QUOTA",
                f"{what} are limited to {rate} a second (--calls-per-second): call again in {again} s, "
                "or watch instead of asking again",
                {"limit": rate, "option": "--calls-per-second"},
                "RESOURCE_EXHAUSTED",
                seconds,
            )


def _bearer(headers: HeaderFields) -> str | None:
    """Return the token in a request's headers; None for none."""
    said = headers.get("authorization") or ""
    return said[len(_BEARER) :].strip() if said[: len(_BEARER)].lower() == _BEARER else None


def session_word(headers: HeaderFields) -> str:
    """Return the word of the session in a request's cookie; empty for none."""
    try:
        found = SimpleCookie(headers.get("cookie") or "").get(COOKIE)
    except CookieError:
        return ""
    return "" if found is None else found.value
