"""Stored pipelines over gRPC: kept, looked at, and submitted by name."""
# ruff: noqa: N802, ARG002 - names and arguments are the contract's

import hashlib
from datetime import UTC, datetime
from typing import Any, Final

import grpc
import grpc.aio

from control.core.answers import Refusal, RefusalCode, Submission
from control.core.effects import VersionStored
from control.core.rows import StoredHead, StoredVersionRow
from control.core.stored_pipelines import unknown
from control.front.access.checked_call import note_of
from control.front.api import submissions
from control.front.api.request import namespace_of, page_size_of
from control.front.control_plane import ControlPlane
from control.front.folder_listings import FolderListings
from control.front.page_token import PageTokens
from control.front.rpc_status import invalid
from control.front.source_reading import ReadSource, SourceReader
from control.front.source_rule import SourceRule
from services.runtime.rpc import RpcError, rpc_error
from shoal import limits
from shoal.names import check_id, stored_name
from shoal.spec import Pipeline
from shoal.spec_text import PipelineSource
from shoal.stored_pipeline import DESCRIPTION_CHARACTERS_MAX
from shoal.v1 import stored_pipelines_service_pb2 as v1
from shoal.v1 import stored_pipelines_service_pb2_grpc as v1_grpc
from shoal.wire.fields import encode_time
from shoal.wire.pipeline_source import decode_source, encode_source
from shoal.wire.spec_report import encode_declared

Context = grpc.aio.ServicerContext[Any, Any]

_UNDATED: Final = datetime(1970, 1, 1, tzinfo=UTC)  # the machine knows the time


class StoredPipelinesService(v1_grpc.StoredPipelinesServiceServicer):
    """Answers people and dashboards.

    Args:
        plane: keeps and records.
        reader: reads specifications.
        rule: which sources of file inputs may be read.
        listings: finds the files of folder inputs.
    """

    def __init__(
        self,
        plane: ControlPlane,
        reader: SourceReader,
        rule: SourceRule,
        listings: FolderListings,
    ) -> None:
        self._plane = plane
        self._reader = reader
        self._rule = rule
        self._listings = listings

    async def CreateStoredPipeline(
        self, request: v1.CreateStoredPipelineRequest, context: Context
    ) -> v1.CreateStoredPipelineResponse:
        """Keep the first version of a name."""
        stored, repeated = await self._store(request, 0, context)
        return v1.CreateStoredPipelineResponse(stored=stored, repeated_request=repeated)

    async def UpdateStoredPipeline(
        self, request: v1.UpdateStoredPipelineRequest, context: Context
    ) -> v1.UpdateStoredPipelineResponse:
        """Keep the next version of a name."""
        if not request.expected_version:
            raise invalid(
                "INVALID_FIELD",
                "expected_version is 0: say which version this is an update of (GetStoredPipeline tells the newest), "
                "or make a new one with CreateStoredPipeline",
                field="expected_version",
            )
        stored, repeated = await self._store(request, request.expected_version, context)
        return v1.UpdateStoredPipelineResponse(stored=stored, repeated_request=repeated)

    async def GetStoredPipeline(
        self, request: v1.GetStoredPipelineRequest, context: Context
    ) -> v1.GetStoredPipelineResponse:
        """Return a version with its content."""
        head = self._head(request.namespace, request.name)
        row = await self._version(head, request.version)
        return v1.GetStoredPipelineResponse(stored=_stored(row, head.newest))

    async def ListStoredPipelines(
        self, request: v1.ListStoredPipelinesRequest, context: Context
    ) -> v1.ListStoredPipelinesResponse:
        """List the names of a namespace."""
        namespace, size = namespace_of(request.namespace), page_size_of(request.page_size)
        tokens = PageTokens("ListStoredPipelines", request)
        begin = tokens.read(str, 1)
        heads = self._plane.stored.page(namespace, begin[0] if begin else "", size + 1)
        shown = heads[:size]
        rows = await self._plane.stored_versions([(*one.key, one.newest) for one in shown])
        newest = {row.name: row for row in rows}
        return v1.ListStoredPipelinesResponse(
            # One that was changed or deleted since is of the next list.
            stored=[_stored(newest[one.name], one.newest) for one in shown if one.name in newest],
            next_page_token=tokens.write((shown[-1].name,) if len(heads) > size else None),
        )

    async def ListStoredVersions(
        self, request: v1.ListStoredVersionsRequest, context: Context
    ) -> v1.ListStoredVersionsResponse:
        """List the versions of a name."""
        head = self._head(request.namespace, request.name)
        rows = await self._plane.stored_versions(
            [(*head.key, number) for number in range(head.newest, head.oldest - 1, -1)]
        )
        return v1.ListStoredVersionsResponse(stored=[_stored(row, head.newest) for row in rows])

    async def DeleteStoredPipeline(
        self, request: v1.DeleteStoredPipelineRequest, context: Context
    ) -> v1.DeleteStoredPipelineResponse:
        """Forget all versions of a name."""
        namespace, name = _key(request.namespace, request.name)
        refusal = await self._plane.delete_stored(
            namespace, name, request.expected_version, note_of(context)
        )
        if refusal is not None:
            raise submissions.refused(refusal)
        return v1.DeleteStoredPipelineResponse()

    async def SubmitStoredPipeline(
        self, request: v1.SubmitStoredPipelineRequest, context: Context
    ) -> v1.SubmitStoredPipelineResponse:
        """Record a pipeline of a version; durable when it returns."""
        namespace, name = _key(request.namespace, request.name)
        if len(request.values) > limits.PARAMETERS_MAX:
            raise invalid(
                "INVALID_FIELD",
                f"there are {len(request.values)} values, {limits.PARAMETERS_MAX} at most; leave some out",
                field="values",
            )
        read = await self._submission(namespace, name, request)
        (outcome,) = await submissions.record(self._plane, self._listings, [read], note_of(context))
        if isinstance(outcome, RpcError):
            raise outcome
        return v1.SubmitStoredPipelineResponse(**outcome)

    async def _submission(
        self, namespace: str, name: str, request: v1.SubmitStoredPipelineRequest
    ) -> Submission:
        """Read what is to run; why it cannot is told only if the request id has made no pipeline before."""
        asked = v1.SubmitStoredPipelineRequest(
            namespace=namespace, name=name, version=request.version, values=request.values
        ).SerializeToString(deterministic=True)
        try:
            head = self._head(namespace, name)
            row = await self._version(head, request.version)
            source = decode_source(v1.StoredPipeline.FromString(row.content).source)
            spec = await self._reader.runnable(source, dict(request.values))
            submission = Submission(
                namespace,
                request.request_id,
                spec,
                stored=stored_name(name, row.version),
                asked=asked,
            )
            allowed = submissions.allowed(submission, self._rule)
            if isinstance(allowed, RpcError):
                raise allowed
        except RpcError as error:
            if error.retry_seconds:  # it may be asked again
                raise
            code = RefusalCode(error.code.value[0])
            refusal = Refusal(code, error.reason, error.message, error.metadata)
            nothing = Pipeline(name, ())
            return Submission(namespace, request.request_id, nothing, refused=refusal, asked=asked)
        return allowed

    async def _store(
        self,
        request: v1.CreateStoredPipelineRequest | v1.UpdateStoredPipelineRequest,
        update_of: int,
        context: Context,
    ) -> tuple[v1.StoredPipeline, bool]:
        namespace, name = _key(request.namespace, request.name)
        if len(request.description) > DESCRIPTION_CHARACTERS_MAX:
            raise invalid(
                "INVALID_FIELD",
                f"the description has {len(request.description)} characters, {DESCRIPTION_CHARACTERS_MAX} at most; "
                "shorten it",
                field="description",
            )
        source = decode_source(request.source)
        found = await self._reader.read(source, may_lack=True)
        self._reader.refuse(found)
        digest = source.bundle_digest
        await self._reader.require_bundle(digest)
        content = _content(source, found)
        note = note_of(context)
        row = StoredVersionRow(
            namespace,
            name,
            0,
            request.description,
            hashlib.sha256(f"{request.description}\0".encode() + content).hexdigest(),
            digest,
            _UNDATED,
            "" if note is None else note.described,
            content,
        )
        answer = await self._plane.store_pipeline(row, update_of, note)
        if isinstance(answer, Refusal):
            raise submissions.refused(answer)
        return await self._kept(row, answer), answer.repeated

    async def _kept(self, row: StoredVersionRow, answer: VersionStored) -> v1.StoredPipeline:
        rows = await self._plane.stored_versions(
            [(row.namespace, row.name, answer.version)], content=True
        )
        if not rows:  # it was deleted at once
            raise submissions.refused(unknown(row.namespace, row.name))
        return _stored(rows[0], answer.version)

    def _head(self, namespace: str, name: str) -> StoredHead:
        key = _key(namespace, name)
        head = self._plane.stored.get(*key)
        if head is None:
            raise submissions.refused(unknown(*key))
        return head

    async def _version(self, head: StoredHead, version: int) -> StoredVersionRow:
        number = version or head.newest
        rows = await self._plane.stored_versions([(*head.key, number)], content=True)
        if not rows:
            raise rpc_error(
                grpc.StatusCode.NOT_FOUND,
                "UNKNOWN_VERSION",
                f"stored pipeline {head.name} of namespace {head.namespace} has no version {number}: kept are "
                f"{head.oldest} to {head.newest}",
                {"name": head.name, "version": str(number)},
            )
        return rows[0]


def _key(namespace: str, name: str) -> tuple[str, str]:
    return namespace_of(namespace), check_id("stored pipeline", name)


def _content(source: PipelineSource, found: ReadSource) -> bytes:
    message = v1.StoredPipeline(
        source=encode_source(source), parameters=encode_declared(found.parameters)
    )
    return message.SerializeToString(deterministic=True)


def _stored(row: StoredVersionRow, newest: int) -> v1.StoredPipeline:
    message = v1.StoredPipeline.FromString(row.content)
    message.MergeFrom(
        v1.StoredPipeline(
            namespace=row.namespace,
            name=row.name,
            version=row.version,
            newest_version=newest,
            description=row.description,
            bundle_digest=row.bundle_digest,
            create_time=encode_time(row.create_time),
            creator=row.creator,
        )
    )
    return message
