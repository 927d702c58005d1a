"""The document of OpenAPI against its own rules, and against what protobuf writes."""

import json
from typing import Any, cast

import jsonschema
import pytest
from google.protobuf.json_format import MessageToDict
from openapi_spec_validator import validate

from services.gateway.contract import OFFERED
from services.gateway.openapi import openapi_document
from shoal.spec import Job, Pipeline
from shoal.v1 import nodes_service_pb2 as nodes
from shoal.v1 import pipelines_service_pb2 as v1
from shoal.wire.spec import encode_pipeline_spec


def test_it_is_a_document_of_openapi_with_every_call_that_is_answered_once() -> None:
    document: Any = json.loads(json.dumps(openapi_document()))
    validate(document)
    assert document["paths"].keys() == {
        path for path, method in OFFERED.items() if not method.streams
    }
    for path, operations in document["paths"].items():
        assert ("get" in operations) == OFFERED[path].safe


def node() -> nodes.GetNodeResponse:
    found = nodes.Node(
        name="cam-1", labels={"a": "b"}, revision=1 << 40, member_state=nodes.MEMBER_STATE_ALIVE
    )
    found.capacity.cpus = 4
    found.last_seen_time.GetCurrentTime()
    found.kept.add(attempt="pipelines/p/jobs/j/attempts/1", size_bytes=1 << 40)
    return nodes.GetNodeResponse(node=found)


@pytest.mark.parametrize(
    ("message", "good"),
    [
        (node(), True),
        (
            v1.SubmitPipelineRequest(spec=encode_pipeline_spec(Pipeline("p", (Job("a", ("x",)),)))),
            True,
        ),
        (nodes.DrainNodeRequest(name="n", drained=True, move_seconds=0.5), True),
        ({"name": 5}, False),
        ({"drained": "yes"}, False),
    ],
)
def test_a_schema_takes_what_protobuf_writes_and_nothing_of_another_kind(
    message: Any, *, good: bool
) -> None:
    name = (
        "shoal.v1.DrainNodeRequest" if isinstance(message, dict) else message.DESCRIPTOR.full_name
    )
    schema = {
        "$ref": f"#/components/schemas/{name}",
        "components": openapi_document()["components"],
    }
    value: dict[str, Any] = cast(
        "dict[str, Any]", message if isinstance(message, dict) else MessageToDict(message)
    )
    validator: Any = jsonschema.Draft202012Validator(schema)
    assert validator.is_valid(value) is good
