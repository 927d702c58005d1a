"""What an archive can do, whatever it is made of."""

from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from services.archive.parts import PartedObject


class PutOutcome(Enum):
    """What became of a put."""

    STORED = "stored"
    EXISTS = "exists"


@dataclass(frozen=True, slots=True)
class SmallObject:
    """An object that is stored from memory, and its key."""

    key: str
    data: bytes


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What is known of an object: its key, size in bytes, and SHA-256 in hex, empty if unknown.

    `modify_time` is when it was stored or refreshed (Unix seconds); 0 from what has just stored it.
    """

    key: str
    size_bytes: int
    sha256: str = ""
    modify_time: float = 0.0


@dataclass(frozen=True, slots=True)
class ListedObject:
    """An object as a list has it: its key, size in bytes, and when it was stored (Unix seconds)."""

    key: str
    size_bytes: int
    modify_time: float


@dataclass(frozen=True, slots=True)
class UnfinishedUpload:
    """An upload in parts that became no object yet: its key, its id, and when it began (Unix seconds)."""

    key: str
    upload_id: str
    begin_time: float


@dataclass(frozen=True, slots=True)
class PresignedPut:
    """Where one object may be stored without credentials, and the headers that the PUT carries."""

    url: str
    headers: Mapping[str, str]


class ArchiveError(Exception):
    """The archive cannot do what it was asked to."""


class ObjectMissingError(ArchiveError):
    """There is no object under that key."""

    def __init__(self, key: str) -> None:
        super().__init__(f"the archive has no object {key!r}")
        self.key = key


class UploadMissingError(ArchiveError):
    """There is no such upload in parts: it was completed, or given up."""

    def __init__(self, key: str) -> None:
        super().__init__(f"the archive knows no such upload of {key!r}; begin another one")
        self.key = key


class ObjectDigestError(ArchiveError):
    """What arrived is not what was announced; nothing was stored."""

    def __init__(self, key: str, *, announced: str, received: str) -> None:
        super().__init__(
            f"object {key!r} was announced with SHA-256 {announced}, and what arrived has "
            f"{received}; nothing was stored: send it again"
        )
        self.key = key
        self.announced = announced
        self.received = received


class ArchiveUnavailableError(ArchiveError):
    """The archive does not answer or refuses; trying again later may help."""


class ArchiveFullError(ArchiveUnavailableError):
    """The archive has no room left; trying again helps once there is some."""


class ObjectStore(Protocol):
    """Objects by key. A put is all or nothing: no reader ever sees half an object."""

    async def put(self, key: str, data: bytes, *, if_absent: bool = False) -> PutOutcome:
        """Store `data`; with `if_absent` only if nothing is stored under `key` yet.

        Raises:
            InvalidKeyError: when no store takes the key.
            ArchiveUnavailableError: when the archive does not answer.
        """
        ...

    async def put_many(
        self, objects: Sequence[SmallObject], *, if_absent: bool = False
    ) -> Sequence[PutOutcome]:
        """Store objects together, and return what became of each, in their order.

        Each is stored as by `put`; once this returns, all of them survive a loss of power. It waits for the disk
        once for all of them where that can be, or asks the server for many at a time.

        Raises:
            InvalidKeyError: when one of the keys is one that no store takes; others may be stored.
            ArchiveUnavailableError: when the archive does not answer; some may be stored.
        """
        ...

    async def put_stream(
        self, key: str, chunks: AsyncIterator[bytes], *, sha256: str = ""
    ) -> ObjectInfo:
        """Store what `chunks` yields, however much that is; nothing when it raises.

        Raises:
            ObjectDigestError: when `sha256` (hex) is given and is not that of the data.
            InvalidKeyError: when no store takes the key.
            ArchiveUnavailableError: when the archive does not answer.
        """
        ...

    async def get(self, key: str) -> bytes:
        """Return the whole object.

        Raises:
            ObjectMissingError: when there is none.
            ArchiveUnavailableError: when the archive does not answer.
        """
        ...

    def read(self, key: str, *, offset: int, size_bytes: int) -> AsyncGenerator[bytes, None]:
        """Yield `size_bytes` of the object from byte `offset` on; less where it ends before.

        Raises:
            ObjectMissingError: when there is none.
            ArchiveUnavailableError: when the archive does not answer.
        """
        ...

    async def head(self, key: str) -> ObjectInfo | None:
        """Return what is known of an object, or None when there is none."""
        ...

    async def presign_put(
        self, key: str, *, size_bytes: int, sha256: str, expires_seconds: int
    ) -> PresignedPut:
        """Return an address for one PUT of exactly this object."""
        ...

    async def presign_get(self, key: str, *, expires_seconds: int) -> str:
        """Return an address for GETs, with ranges."""
        ...

    async def begin_upload(self, key: str, whole: PartedObject) -> str:
        """Begin an upload in parts and return its id; no reader sees anything of it until it is complete."""
        ...

    async def presign_part(
        self, key: str, upload_id: str, whole: PartedObject, number: int, *, expires_seconds: int
    ) -> PresignedPut:
        """Return an address for one PUT of exactly the part `number`, which counts from 1."""
        ...

    async def stored_parts(self, key: str, upload_id: str, whole: PartedObject) -> Collection[int]:
        """Return the numbers of the parts that are there, with their sizes.

        Raises:
            UploadMissingError: when there is no such upload (any more).
            ArchiveUnavailableError: when the archive does not answer.
        """
        ...

    async def complete_upload(self, key: str, upload_id: str, whole: PartedObject) -> None:
        """Let the parts become the object, at once; all of them have to be there.

        Raises:
            UploadMissingError: when there is no such upload (any more).
            ArchiveUnavailableError: when the archive does not answer.
        """
        ...

    async def abort_upload(self, key: str, upload_id: str) -> None:
        """Give an upload up, with its parts; harmless if there is none."""
        ...

    def unfinished_uploads(self) -> AsyncIterator[UnfinishedUpload]:
        """Yield every upload in parts that is neither complete nor given up."""
        ...

    def list_objects(self, prefix: str = "") -> AsyncIterator[ListedObject]:
        """Yield every object whose key begins with `prefix`, however many they are.

        Raises:
            ArchiveUnavailableError: when the archive does not answer.
        """
        ...

    async def delete(self, keys: Collection[str]) -> None:
        """Remove objects; what is not there is removed already.

        Raises:
            ArchiveUnavailableError: when the archive does not answer; some may be gone then.
        """
        ...

    async def refresh(self, key: str) -> None:
        """Let an object be as young as if it were stored now; one that is not there is left so.

        Raises:
            ArchiveUnavailableError: when the archive does not answer.
        """
        ...

    async def copy(self, key: str, to: str) -> None:
        """Store the object of `key` under `to` as well, as private as it is, without reading it here.

        Raises:
            ObjectMissingError: when there is none.
            ArchiveUnavailableError: when the archive does not answer.
        """
        ...

    def get_stream(self, key: str, *, offset: int = 0) -> AsyncIterator[bytes]:
        """Yield the object from byte `offset` on.

        Raises:
            ObjectMissingError: when there is none.
            ArchiveUnavailableError: when the archive does not answer.
        """
        ...
