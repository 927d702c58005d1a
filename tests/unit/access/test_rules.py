"""The table of methods against the contracts."""

import subprocess
import sys
from importlib import import_module
from typing import Any

import pytest

from control.front.api.server import SERVICES
from services.identity.access.rule import Path, Verb, named
from services.identity.access.rules import RULES
from shoal.v1 import (
    archive_service_pb2,
    history_service_pb2,
    identity_service_pb2,
    keys_service_pb2,
    lanes_service_pb2,
    nodes_service_pb2,
    overview_service_pb2,
    pipelines_service_pb2,
    records_service_pb2,
    secrets_service_pb2,
    session_service_pb2,
    specs_service_pb2,
    stored_pipelines_service_pb2,
)

MODULES: tuple[Any, ...] = (
    archive_service_pb2,
    history_service_pb2,
    overview_service_pb2,
    identity_service_pb2,
    keys_service_pb2,
    lanes_service_pb2,
    nodes_service_pb2,
    pipelines_service_pb2,
    records_service_pb2,
    secrets_service_pb2,
    session_service_pb2,
    specs_service_pb2,
    stored_pipelines_service_pb2,
    import_module("grpc_health.v1.health_pb2"),
    import_module("grpc_reflection.v1alpha.reflection_pb2"),
)
METHODS: dict[str, Any] = {
    f"/{service.full_name}/{method.name}": method
    for module in MODULES
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}


def test_every_method_has_a_rule_and_every_rule_a_method() -> None:
    assert RULES.keys() == METHODS.keys()


def test_every_service_that_is_served_is_looked_at() -> None:
    assert set(SERVICES) <= {path[1:].partition("/")[0] for path in METHODS}


KNOWN_TO_A_CONTROLLER = """
from google.protobuf import descriptor_pool
import control.controller
from services.identity.access.rules import RULES

for path in RULES:
    if path.startswith("/shoal."):
        descriptor_pool.Default().FindMethodByName(path[1:].replace("/", "."))
"""


@pytest.mark.parametrize("path", METHODS)
def test_what_a_rule_reads_is_in_the_request(path: str) -> None:
    rule, request = RULES[path], METHODS[path].input_type
    places = (
        (rule.namespace, "TYPE_STRING"),
        (rule.node, "TYPE_STRING"),
        (rule.node_too, "TYPE_STRING"),
        (rule.node_sets, "TYPE_BOOL"),
        (rule.spec, "TYPE_MESSAGE"),
        (rule.bundle, "TYPE_BYTES"),
    )
    for place, kind in places:
        if place:
            field = field_at(request, place)
            assert field.type == getattr(field, kind), place


@pytest.mark.parametrize("path", METHODS)
def test_a_request_with_a_namespace_has_a_rule_that_reads_it(path: str) -> None:
    rule, request = RULES[path], METHODS[path].input_type
    has = "namespace" in request.fields_by_name or any(
        field.message_type is not None and "namespace" in field.message_type.fields_by_name
        for field in request.fields
    )
    # What an operator alone may do is not bound to a namespace; agents name attempts of many.
    if has and rule.verb not in {Verb.OPERATE, Verb.SPEAK_AS_NODE}:
        assert rule.namespace[-1:] == ("namespace",)


@pytest.mark.parametrize("path", METHODS)
def test_what_changes_something_is_told(path: str) -> None:
    seen = ("Get", "List", "Count", "Watch", "Read")
    reads = (*seen, "Explain", "Find", "Tap", "Check", "Validate")
    # Streams and sessions are no single change, and a bundle or a renewal changes nothing for others.
    others = {"PullLane", "FeedLane", "Connect", "UploadBundle", "UploadPieces", "RenewCertificate"}
    name = path.rpartition("/")[2]
    silent = name.startswith(reads) or name in others | {"ServerReflectionInfo"}
    assert RULES[path].changes is not silent


def test_a_controller_alone_knows_the_messages_of_every_method_of_ours() -> None:
    # In a process of its own: here this file has imported all contracts.
    said = subprocess.run(
        (sys.executable, "-c", KNOWN_TO_A_CONTROLLER),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert said.returncode == 0, said.stderr


def test_what_a_message_names_is_read_through_lists_and_messages() -> None:
    requests = [
        pipelines_service_pb2.SubmitPipelineRequest(namespace=one) for one in ("lab", "", "yard")
    ]
    batch = pipelines_service_pb2.SubmitPipelinesRequest(requests=requests)
    rule = RULES["/shoal.v1.PipelinesService/SubmitPipelines"]
    assert named(rule, batch).namespaces == ("lab", "", "yard")
    said = session_service_pb2.ConnectRequest()
    said.messages.add().heartbeat.SetInParent()
    assert named(RULES["/shoal.v1.SessionService/Connect"], said).nodes == ()
    said.messages.add().hello.node = "cam-1"
    assert named(RULES["/shoal.v1.SessionService/Connect"], said).nodes == ("cam-1",)
    said.messages[1].hello.member_name = "cam-2"
    assert named(RULES["/shoal.v1.SessionService/Connect"], said).nodes == ("cam-1", "cam-2")


def field_at(message: Any, path: Path) -> Any:
    field = message.fields_by_name[path[0]]
    return field_at(field.message_type, path[1:]) if path[1:] else field
