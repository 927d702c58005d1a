"""A specification as the text of its file, which a controller reads."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from shoal.model import no_strings
from shoal.spec import Pipeline

TEXT_CHARACTERS_MAX: Final = 64 * 1024
"""Longest text that a controller reads: about a second's work; a client reads longer files itself."""


@dataclass(frozen=True, slots=True)
class SpecText:
    """The text of a specification file, as docs/spec.md has it.

    Attributes:
        text: YAML, at most `TEXT_CHARACTERS_MAX` characters.
        values: by the name of a parameter, its value as text.
        bundle_digest: SHA-256 (hex) of the bundle that `bundle` in the text stands for; empty for none.
    """

    text: str
    values: Mapping[str, str] = field(default_factory=no_strings)
    bundle_digest: str = ""


PipelineSource: TypeAlias = Pipeline | SpecText
"""A specification, read or as text."""
