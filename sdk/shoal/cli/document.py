"""Our values as JSON documents, for scripts."""

import dataclasses
import enum
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import click

from shoal.redaction import redacted
from shoal.spec import Pipeline


def to_document(value: Any) -> Any:
    """Turn a value into what JSON knows: states by name, times in ISO 8601, empty fields kept, sets sorted."""
    if isinstance(value, enum.IntEnum):
        return value.name
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Pipeline):
        # As it was asked for, but that a screen is no place for passwords.
        return json.loads(redacted(json.dumps(_fields(value))))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        document = _fields(value)
        name = getattr(value, "name", None)
        return {"name": name, **document} if isinstance(name, str) else document
    if isinstance(value, Mapping):
        items = cast("Mapping[object, object]", value).items()
        return {str(to_document(key)): to_document(item) for key, item in items}
    if isinstance(value, list | tuple):
        return [to_document(item) for item in cast("tuple[Any, ...]", value)]
    if isinstance(value, frozenset):
        return sorted(map(to_document, cast("frozenset[object]", value)))
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, Path):
        return str(value)
    return value


def _fields(value: Any) -> dict[str, Any]:
    return {
        field.name: to_document(getattr(value, field.name)) for field in dataclasses.fields(value)
    }


def print_document(value: Any) -> None:
    """Write a value to stdout as one line of JSON."""
    click.echo(json.dumps(to_document(value), ensure_ascii=False))
