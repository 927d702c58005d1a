"""Bundles in pieces: which are missing, and one whole tar in the archive of those that were sent and known.

The archive holds whole tars, so that an agent of any version can fetch one, and so that one bundle
can be thrown away without a look at the others. Only the way there is in pieces: those that are known are
read from the tars of earlier bundles.

Rule: a bundle is stored only if all of it has the SHA-256 that was announced.
Why: its digest is its name for all clients, so none may put other bytes under it. It also means that no
client gets the bytes of a piece by naming its hash: one that can say the digest of a whole knows the whole.
"""

import asyncio
import contextlib
import hashlib
import logging
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final
from weakref import WeakValueDictionary

import grpc

from control.front.api.bundle_upload import (
    BUNDLE_BYTES_MAX,
    IDLE_SECONDS,
    PIECE_BYTES_MAX,
    check_digest,
    in_time,
)
from control.front.api.request import namespace_of
from control.front.bundles.known_pieces import KnownPieces, Whereabouts
from control.front.bundles.sent_pieces import BundleUpload, NoRoomError, SentPieces
from control.front.object_key import bundle_key, pieces_key
from control.front.rpc_status import invalid
from services.archive.object_store import (
    ArchiveError,
    ObjectDigestError,
    ObjectMissingError,
    ObjectStore,
)
from services.runtime.log import fields
from services.runtime.rpc import RpcError, rpc_error
from shoal.pieces import Piece, PiecesError, read_pieces, write_pieces
from shoal.v1 import pipelines_service_pb2 as v1

LOG = logging.getLogger(__name__)

_BASES_MAX: Final = 32
"""From so many earlier bundles at most one is made."""

_CLEANING_SECONDS: Final = 3600.0


@dataclass(frozen=True, slots=True)
class _Announced:
    """A bundle as its client says that it is."""

    upload: BundleUpload
    pieces: tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class _Run:
    """Pieces that lie behind one another in an earlier bundle; or one that was sent, without a `base`."""

    pieces: tuple[Piece, ...]
    base: Whereabouts | None = None


@dataclass(eq=False)
class PieceUploads:
    """Takes bundles in pieces.

    Args:
        store: the archive.
        known: remembers what the archive has.
        sent: keeps what came of bundles that are not whole.
        idle_seconds: how long a sender may be silent.
    """

    store: ObjectStore
    known: KnownPieces
    sent: SentPieces
    idle_seconds: float = IDLE_SECONDS
    # Long lists are looked up one after the other, so that they take one thread and not all of them.
    _looking: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(1))
    _locks: WeakValueDictionary[BundleUpload, asyncio.Lock] = field(
        default_factory=WeakValueDictionary[BundleUpload, asyncio.Lock]
    )

    async def run(self) -> None:
        """Drop from time to time what does not go on."""
        while True:
            try:
                await asyncio.to_thread(self.sent.clean)
            except OSError as error:
                LOG.warning("unfinished uploads are not cleaned", extra=fields(why=error))
            await asyncio.sleep(_CLEANING_SECONDS)

    async def find_missing(self, request: v1.FindMissingPiecesRequest) -> list[int]:
        """Return the numbers of the pieces that have to be sent.

        Raises:
            RpcError: the request is no bundle's.
            ArchiveUnavailableError: the archive does not answer.
        """
        announced = _announced(request)
        here = await asyncio.to_thread(self.sent.of, announced.upload)
        bases = await self._bases(announced)
        bases = await self._still_there(bases)
        seen: set[str] = set()
        missing: list[int] = []
        for index, piece in enumerate(announced.pieces):
            if piece.sha256 in here or piece.sha256 in bases or piece.sha256 in seen:
                continue
            seen.add(piece.sha256)
            missing.append(index)
        return missing

    async def take(self, requests: AsyncIterator[v1.UploadPiecesRequest]) -> str:
        """Take pieces, store the bundle, and return its digest.

        Raises:
            RpcError: it is not what was announced, or is not whole; what came of it stays.
            ArchiveError: the archive does not take it.
        """
        requests = in_time(requests, self.idle_seconds)
        first = await anext(requests, None)
        if first is None:
            raise invalid(
                "BUNDLE_EMPTY", "the stream has no message; the first says which bundle it is"
            )
        announced = _announced(first)
        sent = _sent(announced, first.sent)
        with self.sent.held(announced.upload):
            try:
                if sent:
                    size_bytes = sum(piece.size_bytes for piece in sent)
                    await asyncio.to_thread(self.sent.make_room, size_bytes)
                await self._receive(announced.upload, sent, first, requests)
                async with self._locks.setdefault(announced.upload, asyncio.Lock()):
                    await self._store(announced)
            except NoRoomError as error:
                raise rpc_error(
                    grpc.StatusCode.RESOURCE_EXHAUSTED, "UPLOADS_FULL", str(error)
                ) from error
            except OSError as error:
                raise rpc_error(
                    grpc.StatusCode.UNAVAILABLE,
                    "UPLOADS_UNAVAILABLE",
                    f"the folder of unfinished uploads cannot be used: {error}; see to the disk of "
                    "the controller",
                ) from error
        return announced.upload.digest

    async def _receive(
        self,
        upload: BundleUpload,
        sent: Sequence[Piece],
        first: v1.UploadPiecesRequest,
        requests: AsyncIterator[v1.UploadPiecesRequest],
    ) -> None:
        waiting = bytearray(_data(first))
        at = 0
        while True:
            begin = at
            whole: list[tuple[Piece, bytes]] = []
            while at < len(sent) and len(waiting) >= sent[at].size_bytes:
                whole.append((sent[at], bytes(waiting[: sent[at].size_bytes])))
                del waiting[: sent[at].size_bytes]
                at += 1
            if at == len(sent) and waiting:
                raise invalid(
                    "BUNDLE_SIZE",
                    f"{len(waiting)} bytes came behind the last piece that was announced",
                    field="data",
                )
            if whole:
                await asyncio.to_thread(self._keep, upload, begin, whole)
            request = await anext(requests, None)
            if request is None:
                break
            waiting += _data(request)
        if at < len(sent):
            raise invalid(
                "BUNDLE_SIZE",
                f"{len(sent)} pieces were announced, and {at} came; they stay for a day: ask which "
                "are missing, and send those",
                field="data",
            )

    def _keep(self, upload: BundleUpload, begin: int, whole: Sequence[tuple[Piece, bytes]]) -> None:
        for index, (piece, data) in enumerate(whole, begin):
            received = hashlib.sha256(data).hexdigest()
            if received != piece.sha256:
                raise invalid(
                    "PIECE_DIGEST",
                    f"the piece sent as number {index} was announced with SHA-256 {piece.sha256}, and "
                    f"what arrived has {received}: pack and send the bundle again",
                    announced=piece.sha256,
                    received=received,
                )
            self.sent.write(upload, piece, data)

    async def _store(self, announced: _Announced) -> None:
        upload = announced.upload
        key = bundle_key(upload.digest)
        if await self.store.head(key) is None:
            here = await asyncio.to_thread(self.sent.of, upload)
            bases = await self._bases(announced)
            missing = sum(
                piece.sha256 not in here and piece.sha256 not in bases for piece in announced.pieces
            )
            if missing:
                raise _missing(f"{missing} of {len(announced.pieces)} pieces are not here")
            try:
                async with contextlib.aclosing(self._whole(announced, here, bases)) as chunks:
                    await self.store.put_stream(key, chunks, sha256=upload.digest)
            except ObjectDigestError as error:
                await asyncio.to_thread(self.sent.drop, upload)
                raise invalid(
                    "BUNDLE_DIGEST",
                    f"the bundle was announced as {error.announced}, and its pieces make another one; "
                    "nothing was stored: pack and send it again",
                    announced=error.announced,
                ) from error
        try:
            await self.store.put(pieces_key(upload.digest), write_pieces(announced.pieces))
        except ArchiveError as error:  # agents fetch the whole, then
            LOG.warning("no list of pieces", extra=fields(digest=upload.digest, why=error))
        await asyncio.to_thread(self.known.add, upload.namespace, upload.digest, announced.pieces)
        await asyncio.to_thread(self.sent.drop, upload)

    async def _whole(
        self, announced: _Announced, here: frozenset[str], bases: Mapping[str, Whereabouts]
    ) -> AsyncGenerator[bytes, None]:
        for run in _runs(announced.pieces, here, bases):
            if run.base is None:
                data = await asyncio.to_thread(self.sent.read, announced.upload, run.pieces[0])
                if data is None:
                    raise _missing(f"piece {run.pieces[0].sha256} is not here as it was sent")
                yield data
                continue
            async with contextlib.aclosing(self._read_run(run.base, run.pieces)) as found:
                async for data in found:
                    yield data

    async def _read_run(
        self, base: Whereabouts, pieces: Sequence[Piece]
    ) -> AsyncGenerator[bytes, None]:
        """Read pieces that lie behind one another in an earlier bundle, and see that they are those."""
        size_bytes = sum(piece.size_bytes for piece in pieces)
        waiting = bytearray()
        at = 0
        try:
            async with contextlib.aclosing(
                self.store.read(bundle_key(base.digest), offset=base.begin, size_bytes=size_bytes)
            ) as chunks:
                async for chunk in chunks:
                    waiting += chunk
                    while at < len(pieces) and len(waiting) >= pieces[at].size_bytes:
                        data = bytes(waiting[: pieces[at].size_bytes])
                        del waiting[: pieces[at].size_bytes]
                        received = await asyncio.to_thread(hashlib.sha256, data)
                        if received.hexdigest() != pieces[at].sha256:
                            break
                        at += 1
                        yield data
                    else:
                        continue
                    break
        except ObjectMissingError:
            pass
        if at < len(pieces):
            await asyncio.to_thread(self.known.forget, base.digest)
            raise _missing(f"the archive does not have bundle {base.digest} any more as it was")

    async def _bases(self, announced: _Announced) -> Mapping[str, Whereabouts]:
        """Find pieces in earlier bundles, in those alone that have the most."""
        wanted = {piece.sha256 for piece in announced.pieces}
        async with self._looking:
            found = await asyncio.to_thread(self.known.find, announced.upload.namespace, wanted)
        most = Counter(where.digest for where in found.values()).most_common(_BASES_MAX)
        chosen = {digest for digest, _ in most}
        return {sha256: where for sha256, where in found.items() if where.digest in chosen}

    async def _still_there(self, bases: Mapping[str, Whereabouts]) -> Mapping[str, Whereabouts]:
        there: set[str] = set()
        for digest in sorted({where.digest for where in bases.values()}):
            if await self.store.head(bundle_key(digest)) is None:
                await asyncio.to_thread(self.known.forget, digest)
            else:
                there.add(digest)
        return {sha256: where for sha256, where in bases.items() if where.digest in there}


def _announced(request: v1.FindMissingPiecesRequest | v1.UploadPiecesRequest) -> _Announced:
    digest = check_digest(request.digest)
    try:
        pieces = read_pieces(request.pieces)
    except PiecesError as error:
        raise invalid("INVALID_PIECES", str(error), field="pieces") from error
    size_bytes = sum(piece.size_bytes for piece in pieces)
    if size_bytes > BUNDLE_BYTES_MAX:
        raise invalid(
            "BUNDLE_SIZE",
            f"the pieces have {size_bytes} bytes; a bundle has 1 to {BUNDLE_BYTES_MAX} bytes",
            field="pieces",
        )
    return _Announced(BundleUpload(namespace_of(request.namespace), digest), pieces)


def _sent(announced: _Announced, numbers: Sequence[int]) -> list[Piece]:
    known = len(announced.pieces)
    if len(set(numbers)) != len(numbers) or any(number >= known for number in numbers):
        raise invalid(
            "INVALID_PIECES",
            f"`sent` names a piece twice, or one that is not among the {known}",
            field="sent",
        )
    return [announced.pieces[number] for number in numbers]


def _data(request: v1.UploadPiecesRequest) -> bytes:
    if len(request.data) > PIECE_BYTES_MAX:
        raise invalid(
            "BUNDLE_PIECE",
            f"a message has {len(request.data)} bytes of data; send at most {PIECE_BYTES_MAX}",
            field="data",
        )
    return request.data


def _runs(
    pieces: Sequence[Piece], here: frozenset[str], bases: Mapping[str, Whereabouts]
) -> Iterator[_Run]:
    """Put pieces together that one request can read."""
    together: list[Piece] = []
    base: Whereabouts | None = None
    end = 0
    for piece in pieces:
        where = None if piece.sha256 in here else bases[piece.sha256]
        follows = base is not None and where == Whereabouts(base.digest, end)
        if together and not follows:
            yield _Run(tuple(together), base)
            together = []
        if where is None:
            yield _Run((piece,))
            base = None
            continue
        if not together:
            base = where
        together.append(piece)
        end = where.begin + piece.size_bytes
    if together:
        yield _Run(tuple(together), base)


def _missing(why: str) -> RpcError:
    return rpc_error(
        grpc.StatusCode.FAILED_PRECONDITION,
        "PIECES_MISSING",
        f"{why}; ask which are missing, and send those",
    )
