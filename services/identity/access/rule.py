"""What a call of one method takes: a verb, and where a request says what it is about."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, TypeAlias, cast

from shoal.identity import Role

Path: TypeAlias = tuple[str, ...]
"""Names of fields, from the request down; of a repeated field all are meant."""


class Verb(StrEnum):
    """What a caller does with a call."""

    KNOW = "know"
    """Learns of itself and of the server; every person may."""
    READ = "read"
    SUBMIT = "submit"
    OPERATE = "operate"
    DRAIN = "drain"
    """Takes a node out of service: an operator any of them, a node itself."""
    SPEAK_AS_NODE = "speak_as_node"


_PEOPLE: Final = (Role.VIEWER, Role.SUBMITTER, Role.GATEWAY, Role.OPERATOR)

ROLES: Final[Mapping[Verb, tuple[Role, ...]]] = {
    Verb.KNOW: _PEOPLE,
    Verb.READ: _PEOPLE,
    Verb.SUBMIT: (Role.SUBMITTER, Role.GATEWAY, Role.OPERATOR),
    Verb.OPERATE: (Role.OPERATOR,),
    Verb.DRAIN: (Role.NODE, Role.OPERATOR),
    Verb.SPEAK_AS_NODE: (Role.NODE,),
}
"""The roles that may; a controller calls no API yet."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What one method takes.

    Attributes:
        verb: what its caller does.
        namespace: where the namespace stands; empty for what belongs to none.
        each: whether every message of the caller's stream names namespaces, not the first one alone.
        node: where the name of the node stands that a node has to be to make this call.
        node_too: where it may stand besides; empty there means that it is not said again.
        node_sets: a field that has to be true when a node makes this call.
        changes: whether a call that succeeds is told of as an event.
        recorded: whether the machine writes that event, in the transaction of the change.
        spec: where specifications stand, whose bytes are counted.
        bundle: where bytes of a bundle stand, which are counted.
    """

    verb: Verb
    namespace: Path = ()
    each: bool = False
    node: Path = ()
    node_too: Path = ()
    node_sets: Path = ()
    changes: bool = False
    recorded: bool = False
    spec: Path = ()
    bundle: Path = ()


@dataclass(frozen=True, slots=True)
class Named:
    """What a request names.

    Attributes:
        namespaces: each namespace; an empty one is the default.
        nodes: each node.
        set_for_node: whether what a node has to set is set.
    """

    namespaces: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()
    set_for_node: bool = True


def named(rule: Rule, message: Any) -> Named:
    """Read what a request names."""
    return Named(
        tuple(values(message, rule.namespace)) if rule.namespace else (),
        (
            *(values(message, rule.node) if rule.node else ()),
            *(filter(None, values(message, rule.node_too)) if rule.node_too else ()),
        ),
        all(values(message, rule.node_sets)) if rule.node_sets else True,
    )


def values(message: Any, path: Path) -> Iterator[Any]:
    """Return every value at a path; nothing below a message that is not set."""
    if not path:
        yield message
        return
    name, rest = path[0], path[1:]
    field = message.DESCRIPTOR.fields_by_name[name]
    found = getattr(message, name)
    if field.is_repeated:
        for one in cast("list[Any]", found):
            yield from values(one, rest)
    elif field.message_type is None or message.HasField(name):
        yield from values(found, rest)
