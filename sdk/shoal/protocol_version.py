"""Which protocols this build speaks on each link between two processes, and whether two builds can work together.

Theory. A cluster is upgraded while it runs, so for hours or weeks each link has two builds at its ends. A protocol is
the number of what the two say to each other there. Fields that one end may leave out need no new number: a message
takes unknown fields and lacks others. A number is for what an end has to know of the other one before it acts.

Rule. Each end says the lowest and the highest protocol that it speaks, and its version. The two agree on the highest
that both speak. Where there is none, or where one says none (it is of a build before 0.1.0), they refuse each other in
a sentence that names both versions, which of the two is older, and what to do.

Invariant. `agreed` is symmetric: both ends come to the same answer, so it does not matter which of them asks first.

Why ranges and not versions: an agent of 0.3.0 with a keeper of 0.1.0 works as long as neither dropped what they have in
common, and a version says nothing of that. Raising `highest` breaks nothing. Raising `lowest` ends the work with all
builds below it, so it waits until the release before, which still speaks the old one, has been out for a while
(docs/upgrade.md).

Example: an agent that speaks sessions 1 to 2 and a controller that speaks 2 to 3 agree on 2.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

FIRST_VERSION: Final = "0.1.0"
"""The first build that says which protocols it speaks."""

_PAGE: Final = "docs/upgrade.md"
_SPAN: Final = re.compile(r"([0-9]{1,10})-([0-9]{1,10})")
"""As many digits as the contract has for a protocol, which is a number of 32 bits."""


@dataclass(frozen=True, slots=True)
class Protocols:
    """The lowest and the highest protocol that one end of a link speaks, and the version of its build."""

    lowest: int
    highest: int
    version: str = ""


@dataclass(frozen=True, slots=True)
class LinkKind:
    """A kind of link between two processes, by its name for people.

    `lowest` is the lowest protocol that this build still speaks; `brought` says what each number brought, and its last
    one is the highest.
    """

    name: str
    lowest: int
    brought: Mapping[int, str]

    def said_by(self, version: str) -> Protocols:
        """What this build says of itself on the link."""
        return Protocols(self.lowest, max(self.brought), version)


SESSION: Final = LinkKind(
    "sessions", 1, MappingProxyType({1: "0.1.0: Hello and Welcome say protocols"})
)
"""Agent and controller: `SessionService` of the contract."""
SESSION_SPOKEN: Final = SESSION.said_by("")
"""What this build speaks there, where its version is said elsewhere."""
SANDBOXES: Final = 2
"""The protocol of keepers since which a start has a `sandbox`; an earlier keeper would leave it out."""
BATCHES: Final = 3
"""The protocol of keepers since which a packet may hold a list of messages, in both directions."""
KEEPER: Final = LinkKind(
    "keepers",
    1,
    MappingProxyType(
        {
            1: "0.1.0: the answer to `watch` says protocols",
            SANDBOXES: "0.2.0: `start` takes `sandbox`",
            BATCHES: "0.2.0: a packet may hold a list of messages",
        }
    ),
)
"""Agent and keeper: the packets of `edge_agent.keeper.request`."""
STREAM_WORKER: Final = LinkKind(
    "stream workers", 1, MappingProxyType({1: "0.1.0: both ends of WatchAttempts say protocols"})
)
"""Agent and stream worker: `StreamWorkerService` of the contract."""
LANES: Final = LinkKind(
    "lanes", 1, MappingProxyType({1: "0.1.0: the first messages of a lane say protocols"})
)
"""Stream worker and stream worker, or client: `StreamsService` and `LanesService` of the contract."""
API: Final = LinkKind(
    "requests", 1, MappingProxyType({1: "0.1.0: a client says protocols as its user agent"})
)
"""Client and controller: all other services of the contract."""


@dataclass(frozen=True, slots=True)
class LinkEnd:
    """One end of a link: its name for people, what it says, and what to do where it is the older one."""

    name: str
    said: Protocols | None
    if_older: str


class NoCommonProtocolError(Exception):
    """Two ends of a link cannot work together; the message says for people which versions they are and what to do."""


def agreed(link: LinkKind, one: LinkEnd, other: LinkEnd) -> int:
    """Return the highest protocol that both ends speak.

    Raises:
        NoCommonProtocolError: there is none.
    """
    if one.said is not None and other.said is not None:
        highest = min(one.said.highest, other.said.highest)
        if highest >= max(one.said.lowest, other.said.lowest):
            return highest
    older, newer = _by_age(one, other)
    raise NoCommonProtocolError(
        f"{older.name} {_speaks(link, older.said)}, and {newer.name} {_speaks(link, newer.said)}, so they cannot work "
        f"together: {older.name} is the older one; {older.if_older} ({_PAGE})"
    )


def _by_age(one: LinkEnd, other: LinkEnd) -> tuple[LinkEnd, LinkEnd]:
    def age(end: LinkEnd) -> int:
        return 0 if end.said is None else end.said.highest

    return (one, other) if age(one) <= age(other) else (other, one)


def _speaks(link: LinkKind, said: Protocols | None) -> str:
    if said is None:
        return f"is of a build before {FIRST_VERSION}, which does not say what it speaks"
    low, high = said.lowest, said.highest
    span = f"protocol {low}" if low == high else f"protocols {low} to {high}"
    return f"of version {said.version or 'unknown'} speaks {span} of {link.name}"


def as_text(said: Protocols) -> str:
    """Write protocols as words of a user agent: `shoal/0.1.0 protocols/1-2`."""
    return f"shoal/{said.version} protocols/{said.lowest}-{said.highest}"


def from_text(words: str) -> Protocols | None:
    """Read protocols among the words of a user agent; None where it does not name them."""
    named = dict(word.split("/", 1) for word in words.split() if "/" in word)
    span = _SPAN.fullmatch(named.get("protocols", ""))
    return span and Protocols(int(span[1]), int(span[2]), named.get("shoal", ""))
