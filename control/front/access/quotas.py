"""How much one caller may ask for, so that none takes the controller from the others.

Counted per identity: a gateway's users share its quota, since it may name as many as it likes.
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import grpc

from services.runtime.call_rates import CALLERS_MAX, CallRates
from services.runtime.rpc import RpcError, rpc_error
from services.runtime.token_bucket import TokenBucket

AGENT_CALLS_PER_SECOND: Final = 1000.0
"""Calls that an agent may begin a second, whatever people may: it needs a few an hour, and its work hangs on them."""

_HOUR: Final = 3600.0


@dataclass(frozen=True, slots=True)
class CallerLimits:
    """What one identity may ask for.

    Attributes:
        calls_per_second: how many calls it may begin a second; twice as many at once.
        watches: how many calls it may have open that last: watches, logs, taps, lanes, sessions.
        spec_bytes: bytes of specifications that it may submit within an hour.
        bundle_bytes: bytes of bundles that it may upload within an hour.
    """

    calls_per_second: float = 1000.0
    watches: int = 1000
    spec_bytes: int = 4 << 30
    bundle_bytes: int = 256 << 30


@dataclass(slots=True)
class _Use:
    specs: TokenBucket
    bundles: TokenBucket
    watches: int = 0


class Quotas:
    """Counts what callers ask for.

    Args:
        limits: what each may.
        clock: monotonic seconds.
    """

    def __init__(self, limits: CallerLimits, clock: Callable[[], float]) -> None:
        self._limits = limits
        self._clock = clock
        self._rates = CallRates(limits.calls_per_second, clock)
        self._agent_rates = CallRates(AGENT_CALLS_PER_SECOND, clock)
        self._uses: OrderedDict[str, _Use] = OrderedDict()

    def call(self, caller: str, *, agent: bool = False) -> None:
        """Count a call; that of an `agent` is limited by what no agent ever needs, and by no setting.

        Raises:
            RpcError: there were too many.
        """
        rates = self._agent_rates if agent else self._rates
        seconds = rates.count(caller)
        if seconds:
            what = f"makes more than {rates.per_second:g} calls a second"
            raise _over(caller, what, "--caller-calls", seconds)

    @contextmanager
    def watch(self, caller: str) -> Iterator[None]:
        """Count a call that lasts.

        Raises:
            RpcError: too many are open.
        """
        use, limit = self._use(caller), self._limits.watches
        if use.watches >= limit:
            raise _over(
                caller,
                f"has {limit} watches, logs, taps, lanes or sessions open, which is the most",
                "--caller-watches",
                remedy="end some",
            )
        use.watches += 1
        try:
            yield
        finally:
            use.watches -= 1

    def spec(self, caller: str, size_bytes: int) -> None:
        """Count bytes of specifications.

        Raises:
            RpcError: there were too many.
        """
        bucket = self._use(caller).specs
        if not bucket.take(size_bytes, self._clock()):
            what = f"submits more than {self._limits.spec_bytes} bytes of specifications an hour"
            raise _over(caller, what, "--caller-spec-bytes", bucket.seconds_until(size_bytes))

    def bundle(self, caller: str, size_bytes: int) -> None:
        """Count bytes of a bundle.

        Raises:
            RpcError: there were too many.
        """
        bucket = self._use(caller).bundles
        if not bucket.take(size_bytes, self._clock()):
            what = f"uploads more than {self._limits.bundle_bytes} bytes of bundles an hour"
            raise _over(caller, what, "--caller-bundle-bytes", bucket.seconds_until(size_bytes))

    def _use(self, caller: str) -> _Use:
        use = self._uses.get(caller)
        if use is None:
            use = self._uses[caller] = self._fresh()
            self._trim()
        self._uses.move_to_end(caller)
        return use

    def _fresh(self) -> _Use:
        limits, now = self._limits, self._clock()
        specs, bundles = limits.spec_bytes, limits.bundle_bytes
        return _Use(
            TokenBucket(specs, specs / _HOUR, specs, now),
            TokenBucket(bundles, bundles / _HOUR, bundles, now),
        )

    def _trim(self) -> None:
        if len(self._uses) > CALLERS_MAX:
            idle = next((one for one, use in self._uses.items() if not use.watches), None)
            if idle is not None:
                del self._uses[idle]


def _over(
    caller: str, what: str, option: str, seconds: float = math.inf, *, remedy: str = ""
) -> RpcError:
    """Return the error of a caller that asks for more than one may, but may again in so many seconds."""
    known = math.isfinite(seconds)
    remedy = remedy or (f"call again in {max(0.001, seconds):.3g} s" if known else "send less")
    return rpc_error(
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "QUOTA",
        f"{caller} {what}: {remedy}, or let an operator raise {option} of the controller",
        {"caller": caller, "option": option},
        seconds if known else 0.0,
    )
