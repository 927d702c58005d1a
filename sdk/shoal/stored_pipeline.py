"""A stored pipeline: a specification that a namespace keeps under a name, with versions."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from shoal.parameter import Parameter
from shoal.spec_text import PipelineSource

DESCRIPTION_CHARACTERS_MAX: Final = 1_000


@dataclass(frozen=True, slots=True)
class StoredPipelineView:
    """One version of a stored pipeline.

    Attributes:
        namespace: where it belongs.
        name: what it is called.
        version: which version this is, from 1.
        newest_version: the newest one.
        description: for people.
        source: the specification; None in lists.
        parameters: those that it declares; empty in lists.
        bundle_digest: SHA-256 (hex) of its bundle; empty for none.
        create_time: when this version was kept.
        creator: the identity that made this version (`submitter/lab/ann`).
    """

    namespace: str
    name: str
    version: int
    newest_version: int = 0
    description: str = ""
    source: PipelineSource | None = None
    parameters: tuple[Parameter, ...] = ()
    bundle_digest: str = ""
    create_time: datetime | None = None
    creator: str = ""
