"""How much one caller may ask for, so that none takes the controller from the others.

Counted per identity: a gateway's users share its quota, since it may name as many as it likes.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import grpc

from services.runtime.rpc import RpcError, rpc_error
from services.runtime.token_bucket import TokenBucket

CALLERS_MAX: Final = 10_000
"""Callers whose use is remembered; beyond it, that of the one that has called for the longest time not is forgotten."""

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
    calls: TokenBucket
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
        self._uses: OrderedDict[str, _Use] = OrderedDict()

    def call(self, caller: str) -> None:
        """Count a call.

        Raises:
            RpcError: there were too many.
        """
        limit = self._limits.calls_per_second
        if not self._use(caller).calls.take(1, self._clock()):
            raise _over(caller, f"makes more than {limit:g} calls a second", "--caller-calls")

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
                "end some",
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
        if not self._use(caller).specs.take(size_bytes, self._clock()):
            limit = self._limits.spec_bytes
            what = f"submits more than {limit} bytes of specifications an hour"
            raise _over(caller, what, "--caller-spec-bytes")

    def bundle(self, caller: str, size_bytes: int) -> None:
        """Count bytes of a bundle.

        Raises:
            RpcError: there were too many.
        """
        if not self._use(caller).bundles.take(size_bytes, self._clock()):
            limit = self._limits.bundle_bytes
            what = f"uploads more than {limit} bytes of bundles an hour"
            raise _over(caller, what, "--caller-bundle-bytes")

    def _use(self, caller: str) -> _Use:
        use = self._uses.get(caller)
        if use is None:
            use = self._uses[caller] = self._fresh()
            self._trim()
        self._uses.move_to_end(caller)
        return use

    def _fresh(self) -> _Use:
        limits, now = self._limits, self._clock()
        calls, specs, bundles = limits.calls_per_second, limits.spec_bytes, limits.bundle_bytes
        return _Use(
            TokenBucket(2 * calls, calls, 2 * calls, now),
            TokenBucket(specs, specs / _HOUR, specs, now),
            TokenBucket(bundles, bundles / _HOUR, bundles, now),
        )

    def _trim(self) -> None:
        if len(self._uses) > CALLERS_MAX:
            idle = next((one for one, use in self._uses.items() if not use.watches), None)
            if idle is not None:
                del self._uses[idle]


def _over(caller: str, what: str, option: str, remedy: str = "call again later") -> RpcError:
    return rpc_error(
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "QUOTA",
        f"{caller} {what}: {remedy}, or let an operator raise {option} of the controller",
        {"caller": caller, "option": option},
    )
