"""Whom `decide` lets in: laws that hold for every method, every caller and every request."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.identity.access.caller import Caller
from services.identity.access.decision import CallAllowed, CallRefused, decide
from services.identity.access.rule import ROLES, Named, Rule, Verb
from services.identity.access.rules import RULES
from shoal.identity import IN_NAMESPACE, Identity, Role

NAMES = st.sampled_from(("lab", "yard", "default"))
ROLE = st.sampled_from(tuple(Role))


@st.composite
def callers(draw: st.DrawFn) -> Caller:
    role = draw(ROLE)
    namespace = draw(st.sampled_from(("", "lab", "yard"))) if role in IN_NAMESPACE else ""
    identity = Identity(
        draw(st.sampled_from(("c1", "c2"))), role, draw(st.sampled_from(("a", "b"))), namespace
    )
    return Caller(identity, "10.0.0.7", draw(st.sampled_from(("", "ann", "Not An Id"))))


RULE = st.sampled_from(sorted(RULES))
REQUEST = st.builds(
    Named,
    st.lists(st.one_of(NAMES, st.just("")), max_size=3).map(tuple),
    st.lists(st.sampled_from(("a", "b", "")), max_size=2).map(tuple),
    st.booleans(),
)


@given(RULE, callers(), REQUEST)
def test_who_is_let_in_may(path: str, caller: Caller, request: Named) -> None:
    rule = RULES[path]
    answer = decide(rule, path, "c1", caller, request)
    role = caller.identity.role
    if isinstance(answer, CallRefused):
        assert caller.described in answer.message or caller.key in answer.message
        return
    assert caller.identity.cluster == "c1"
    assert role in ROLES[rule.verb]
    if rule.verb is Verb.OPERATE:
        assert role is Role.OPERATOR
    if caller.identity.namespace:
        assert {one or "default" for one in request.namespaces} <= {caller.identity.namespace}
    if role is Role.NODE:
        assert rule.verb in {Verb.SPEAK_AS_NODE, Verb.DRAIN}
        assert set(request.nodes) <= {caller.identity.name}
        assert request.set_for_node
    if caller.user:
        assert role is Role.GATEWAY
    if role is Role.GATEWAY and rule.verb is not Verb.KNOW:
        assert caller.user == "ann"
    assert role is not Role.CONTROLLER


@given(callers(), REQUEST)
def test_nobody_may_call_what_no_rule_names(caller: Caller, request: Named) -> None:
    assert isinstance(decide(None, "X.Y", "c1", caller, request), CallRefused)


@pytest.mark.parametrize(
    ("role", "verb", "reason"),
    [
        (Role.VIEWER, Verb.READ, ""),
        (Role.VIEWER, Verb.SUBMIT, "NOT_ALLOWED"),
        (Role.VIEWER, Verb.OPERATE, "NOT_ALLOWED"),
        (Role.SUBMITTER, Verb.SUBMIT, ""),
        (Role.SUBMITTER, Verb.DRAIN, "NOT_ALLOWED"),
        (Role.OPERATOR, Verb.SUBMIT, ""),
        (Role.OPERATOR, Verb.DRAIN, ""),
        (Role.OPERATOR, Verb.OPERATE, ""),
        (Role.OPERATOR, Verb.SPEAK_AS_NODE, "NOT_ALLOWED"),
        (Role.NODE, Verb.SPEAK_AS_NODE, ""),
        (Role.NODE, Verb.READ, "NOT_ALLOWED"),
        (Role.GATEWAY, Verb.READ, "USER_MISSING"),
        (Role.GATEWAY, Verb.KNOW, ""),
        (Role.CONTROLLER, Verb.KNOW, "NOT_ALLOWED"),
    ],
)
def test_roles(role: Role, verb: Verb, reason: str) -> None:
    caller = Caller(Identity("c1", role, "ann"))
    answer = decide(Rule(verb), "X.Y", "c1", caller, Named())
    assert reason == (answer.reason if isinstance(answer, CallRefused) else "")


def test_a_refusal_names_caller_method_namespace_and_role() -> None:
    ann = Caller(Identity("c1", Role.VIEWER, "ann", "lab"))
    asked = Named(namespaces=("yard",))
    reads, submits = Rule(Verb.READ, ("namespace",)), Rule(Verb.SUBMIT, ("namespace",))
    answer = decide(submits, "PipelinesService.SubmitPipeline", "c1", ann, asked)
    assert isinstance(answer, CallRefused)
    for word in ("viewer/lab/ann", "PipelinesService.SubmitPipeline", "yard", "a submitter"):
        assert word in answer.message
    answer = decide(reads, "PipelinesService.GetPipeline", "c1", ann, asked)
    assert isinstance(answer, CallRefused)
    assert answer.reason == "OTHER_NAMESPACE"
    assert isinstance(decide(reads, "X.Y", "c1", ann, Named(("lab",))), CallAllowed)
    assert isinstance(decide(reads, "X.Y", "c1", ann, Named(("",))), CallRefused), (
        "empty is `default`"
    )
