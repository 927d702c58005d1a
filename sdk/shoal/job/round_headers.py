"""The headers of the present round: what its records brought, and what it sends on."""

from typing import Callable, Optional, Sequence

from shoal.job.error import PortError
from shoal.job.headers import Headers
from shoal.job.reducers import Reducers


class RoundHeaders:
    """One map a round, which everything that the round sends carries.

    Attributes:
        reducers: How the headers of several records become one map.
        live: Whether the present round has a map; a round without costs nothing.
        rounds: Whether there are rounds at all: not in stream style.
    """

    def __init__(self, carry: Callable[[Optional[Headers]], None]) -> None:
        """Begin without headers.

        Args:
            carry: tells the outputs which map their records carry from now on.
        """
        self.reducers = Reducers()
        self.live = False
        self.rounds = False
        self._carry = carry
        self._headers: Headers = {}

    def begin(self, headers: Sequence[Headers]) -> None:
        """A round begins whose records have these headers.

        Raises:
            HeaderError: They cannot be merged.
        """
        self._enter(self.reducers.merge(headers))

    def current(self) -> Headers:
        """The map of this round; what is put into it is sent.

        Raises:
            PortError: There are no rounds.
        """
        if not self.rounds:
            raise PortError(
                "job.headers are those of a round, and in stream style there is none: read "
                "job.inputs[...].headers, and send(value, headers=...)"
            )
        if not self.live:
            self._enter({})
        return self._headers

    def clear(self) -> None:
        """The round is over."""
        self.live = False
        self._carry(None)

    def _enter(self, headers: Headers) -> None:
        self.live = True
        self._headers = headers
        self._carry(headers)
