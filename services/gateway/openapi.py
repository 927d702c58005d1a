"""The calls that are answered once, as OpenAPI 3.1, made of the descriptors.

Rule: a schema is what protobuf's JSON says (protobuf.dev, "ProtoJSON"): names in camelCase, 64-bit numbers as strings,
bytes as base64, enumerations by name, times as RFC 3339, and what has its default left out, so nothing is required.
"""

from functools import cache
from typing import Any, Final

from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor

from services.gateway.contract import OFFERED
from shoal.version import VERSION

_TYPES: Final[dict[int, dict[str, Any]]] = {
    FieldDescriptor.TYPE_BOOL: {"type": "boolean"},
    FieldDescriptor.TYPE_STRING: {"type": "string"},
    FieldDescriptor.TYPE_BYTES: {"type": "string", "contentEncoding": "base64"},
    FieldDescriptor.TYPE_DOUBLE: {"type": ["number", "string"], "format": "double"},
    FieldDescriptor.TYPE_FLOAT: {"type": ["number", "string"], "format": "float"},
    FieldDescriptor.TYPE_INT32: {"type": "integer", "format": "int32"},
    FieldDescriptor.TYPE_UINT32: {"type": "integer", "minimum": 0},
    FieldDescriptor.TYPE_INT64: {"type": ["string", "integer"], "format": "int64"},
    FieldDescriptor.TYPE_UINT64: {"type": ["string", "integer"], "format": "uint64"},
}
_KNOWN: Final[dict[str, dict[str, Any]]] = {
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    "google.protobuf.Duration": {"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]+)?s$"},
}
_ERROR: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "code": {
            "type": "string",
            "description": "A code of gRPC in lower case, such as `not_found`.",
        },
        "message": {"type": "string", "description": "The thing, the value and the remedy."},
        "details": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "type": {"type": "string"},
                    "value": {"type": "string", "contentEncoding": "base64"},
                },
            },
        },
    },
}


@cache
def openapi_document() -> dict[str, Any]:
    """Return the document."""
    schemas: dict[str, Any] = {"connect.Error": _ERROR}
    paths: dict[str, Any] = {}
    for path, method in OFFERED.items():
        if method.streams:
            continue
        request, response = method.request.DESCRIPTOR, method.response.DESCRIPTOR
        operation: dict[str, Any] = {
            "tags": [method.service.rpartition(".")[2]],
            "responses": {
                "200": {"description": "The answer.", "content": _json(_schema(response, schemas))},
                "default": {
                    "description": "A refusal.",
                    "content": _json({"$ref": "#/components/schemas/connect.Error"}),
                },
            },
        }
        body = {"required": True, "content": _json(_schema(request, schemas))}
        name = path[1:].replace("/", ".")
        paths[path] = {"post": {**operation, "operationId": name, "requestBody": body}}
        if method.safe:
            asked = [
                {
                    "name": "encoding",
                    "in": "query",
                    "required": True,
                    "schema": {"const": "json"},
                },
                {
                    "name": "message",
                    "in": "query",
                    "required": True,
                    "content": _json(_schema(request, schemas)),
                },
            ]
            paths[path]["get"] = {**operation, "operationId": f"{name}.get", "parameters": asked}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Shoal", "version": VERSION},
        "paths": paths,
        "components": {
            "schemas": dict(sorted(schemas.items())),
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "session": {"type": "apiKey", "in": "cookie", "name": "shoal-session"},
            },
        },
        "security": [{"token": []}, {"session": []}],
    }


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _schema(message: Any, schemas: dict[str, Any]) -> dict[str, Any]:
    """Return a reference to the schema of a message, which is made if it is not there yet."""
    known = _KNOWN.get(message.full_name)
    if known is not None:
        return known
    if message.full_name not in schemas:
        properties: dict[str, Any] = {}
        schemas[message.full_name] = {"type": "object", "properties": properties}
        for field in message.fields:
            properties[field.json_name] = _field(field, schemas)
    return {"$ref": f"#/components/schemas/{message.full_name}"}


def _field(field: FieldDescriptor, schemas: dict[str, Any]) -> dict[str, Any]:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        value = field.message_type.fields_by_name["value"]
        return {"type": "object", "additionalProperties": _one(value, schemas)}
    one = _one(field, schemas)
    return {"type": "array", "items": one} if field.is_repeated else one


def _one(field: FieldDescriptor, schemas: dict[str, Any]) -> dict[str, Any]:
    if field.message_type is not None:
        return _schema(field.message_type, schemas)
    if field.enum_type is not None:
        return _enumeration(field.enum_type, schemas)
    return _TYPES[field.type]


def _enumeration(found: EnumDescriptor, schemas: dict[str, Any]) -> dict[str, Any]:
    names = [value.name for value in found.values]
    schemas.setdefault(found.full_name, {"type": "string", "enum": names})
    return {"$ref": f"#/components/schemas/{found.full_name}"}
