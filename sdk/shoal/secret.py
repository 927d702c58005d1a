"""Secrets: values that a job needs and that stand in no specification, which only names them.

A namespace has secrets by name. Their values go one way: from the caller that sets them to the controller, and
from there to the nodes whose jobs name them. No call returns them.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Final

from shoal.names import ID_PATTERN

SECRET_BYTES_MIN: Final = 4
"""Shortest value of a secret: what is shorter would be found in every log, where values are left out."""

SECRET_BYTES_MAX: Final = 16 * 1024
"""Longest value of a secret."""

JOB_SECRETS_BYTES_MAX: Final = 64 * 1024
"""Most bytes of all values of a job together."""

JOB_SECRETS_MAX: Final = 32
"""Most secrets that a job names."""

NAMESPACE_SECRETS_MAX: Final = 1_000
"""Most secrets of a namespace."""


class SecretForm(enum.Enum):
    """How a program gets a secret."""

    VARIABLE = "variable"
    """An environment variable holds the value, which has to be text (UTF-8) without NUL characters."""
    FILE = "file"
    """An environment variable holds the path of a file with the value, which only the job can read."""


@dataclass(frozen=True, slots=True)
class SecretUse:
    """A secret of the pipeline's namespace that a job gets, in or by way of a variable.

    Attributes:
        variable: name of the environment variable.
        name: name of the secret, `[a-z][a-z0-9-]{0,62}`.
        form: what the variable holds.
    """

    variable: str
    name: str
    form: SecretForm = SecretForm.VARIABLE


@dataclass(frozen=True, slots=True)
class SecretView:
    """What is shown of a secret, which is never its value.

    Attributes:
        namespace: where it belongs.
        name: what jobs call it.
        version: how often it was set, from 1.
        create_time: when it was set first.
        update_time: when it was set last.
        creator: the identity that set it last (`submitter/lab/ann`).
        unreadable: whether the controller has lost the key that the value is sealed under.
    """

    namespace: str
    name: str
    version: int
    create_time: datetime | None = None
    update_time: datetime | None = None
    creator: str = ""
    unreadable: bool = False


def no_secrets() -> Mapping[str, bytes]:
    """An empty mapping that cannot be filled: values by the name of a secret."""
    return MappingProxyType({})


def secret_name_problem(name: str) -> str:
    """Say why `name` is no name of a secret; empty when it is one.

    The words do not have it: a value may have been written in the place of its name.
    """
    if ID_PATTERN.fullmatch(name):
        return ""
    return (
        "what stands there is no name of a secret, which has up to 63 lower-case letters, digits or hyphens; write "
        "the name, and give the value with: shoal secret set NAME"
    )


def value_problem(value: bytes) -> str:
    """Say why `value` cannot be kept as a secret; empty when it can. Nothing of the value is in the words."""
    if len(value) < SECRET_BYTES_MIN:
        return f"has {len(value)} bytes; give {SECRET_BYTES_MIN} at least, since a value is left out of all logs"
    if len(value) > SECRET_BYTES_MAX:
        return (
            f"has {len(value)} bytes, {SECRET_BYTES_MAX} at most; keep what is longer elsewhere, and set the key "
            "to it"
        )
    return ""


def is_text(value: bytes) -> bool:
    """Whether a variable can hold `value`."""
    try:
        return "\0" not in value.decode()
    except UnicodeDecodeError:
        return False
