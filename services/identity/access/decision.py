"""Whether a caller may make a call: a pure function of the rule, the caller, and what the request names.

Invariants (tests/property/control/test_access.py): an operator's verb is an operator's alone; a caller that is bound to
a namespace passes for no other; a node passes for no other node.
"""

from dataclasses import dataclass
from typing import Final

from services.identity.access.caller import Caller
from services.identity.access.rule import ROLES, Named, Rule, Verb
from shoal.identity import Role
from shoal.names import DEFAULT_NAMESPACE, ID_PATTERN


@dataclass(frozen=True, slots=True)
class CallAllowed:
    """The call may go on."""


@dataclass(frozen=True, slots=True)
class CallRefused:
    """The call ends here.

    Attributes:
        reason: in UPPER_SNAKE_CASE.
        message: names the caller, the method, what it takes, and the remedy.
    """

    reason: str
    message: str


ALLOWED = CallAllowed()

JOIN: Final = "an operator makes a join token for that role with: shoal token create"
"""How a caller of a controller gets a role."""


def decide(
    rule: Rule | None,
    method: str,
    cluster: str,
    caller: Caller,
    request: Named,
    remedy: str = JOIN,
) -> CallAllowed | CallRefused:
    """Say whether a caller may make a call.

    Args:
        rule: what the method takes; None where no rule names it.
        method: `NodesService.DrainNode`.
        cluster: id of this cluster.
        caller: the maker of the call.
        request: what the request, or one message of it, names.
        remedy: how such a caller gets a role.
    """
    identity = caller.identity
    who = caller.described
    if identity.cluster != cluster:
        return CallRefused(
            "OTHER_CLUSTER",
            f"{who} belongs to cluster {identity.cluster}, and this is cluster {cluster}: "
            "join this one with a token of it",
        )
    if rule is None:
        return CallRefused("NOT_ALLOWED", f"no rule names {method}, so {who} may not call it")
    roles = ROLES[rule.verb]
    if identity.role not in roles:
        return CallRefused(
            "NOT_ALLOWED",
            f"{who} may not call {method}{_where(request)}: it takes {_listed(roles)}; {remedy}",
        )
    if refused := _about_user(rule, method, caller):
        return refused
    for asked in request.namespaces:
        namespace = asked or DEFAULT_NAMESPACE
        if identity.namespace and namespace != identity.namespace:
            return CallRefused(
                "OTHER_NAMESPACE",
                f"{who} may not call {method} in namespace {namespace}: its role is bound to namespace "
                f"{identity.namespace}, so name that one (--namespace {identity.namespace})",
            )
    if identity.role is Role.NODE:
        return _about_node(method, caller, request)
    return ALLOWED


def _about_user(rule: Rule, method: str, caller: Caller) -> CallRefused | None:
    gateway = caller.identity.role is Role.GATEWAY
    if caller.user and not gateway:
        return CallRefused(
            "USER_NOT_ALLOWED",
            f"{caller.identity.described} may not call {method} for another user: that takes a gateway; "
            "leave the metadata shoal-user out",
        )
    if not gateway or rule.verb is Verb.KNOW:
        return None
    if not caller.user:
        return CallRefused(
            "USER_MISSING",
            f"{caller.described} has to say for whom it calls {method}: name the user in the metadata "
            "shoal-user",
        )
    if ID_PATTERN.fullmatch(caller.user) is None:
        return CallRefused(
            "USER_INVALID",
            f"the user {caller.user[:80]!r} of {caller.identity.described} is not a valid id: use a "
            "lower-case letter, then up to 62 lower-case letters, digits or hyphens",
        )
    return None


def _about_node(method: str, caller: Caller, request: Named) -> CallAllowed | CallRefused:
    own = caller.identity.name
    for node in request.nodes:
        if node != own:
            return CallRefused(
                "OTHER_NODE",
                f"{caller.described} may not call {method} for node {node[:80]!r}: it speaks for "
                f"{own} alone; start that agent with a state folder of its own, which joins with a token",
            )
    if not request.set_for_node:
        return CallRefused(
            "NOT_ALLOWED",
            f"{caller.described} may drain itself, and not end that: it takes an operator",
        )
    return ALLOWED


def _where(request: Named) -> str:
    namespaces = sorted({one or DEFAULT_NAMESPACE for one in request.namespaces})
    return f" in namespace {', '.join(namespaces[:3])}" if namespaces else ""


def _listed(roles: tuple[Role, ...]) -> str:
    words = [f"{'an' if role[0] in 'aeiou' else 'a'} {role}" for role in roles]
    return " or ".join(words)
