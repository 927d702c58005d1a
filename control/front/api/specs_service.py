"""Specifications as text over gRPC: looked at, and submitted."""
# ruff: noqa: N802, ARG002 - names and arguments are the contract's

from typing import Any

import grpc.aio

from control.core.answers import Submission
from control.front.access.checked_call import note_of
from control.front.api import submissions
from control.front.api.request import namespace_of
from control.front.control_plane import ControlPlane
from control.front.folder_listings import FolderListings
from control.front.source_reading import SourceReader
from control.front.source_rule import SourceRule
from services.runtime.rpc import RpcError
from shoal.spec_report import SpecProblem, SpecReport
from shoal.v1 import specs_service_pb2 as v1
from shoal.v1 import specs_service_pb2_grpc as v1_grpc
from shoal.wire.fields import WireError
from shoal.wire.pipeline_source import decode_source
from shoal.wire.spec_report import encode_report

Context = grpc.aio.ServicerContext[Any, Any]


class SpecsService(v1_grpc.SpecsServiceServicer):
    """Answers people and dashboards.

    Args:
        plane: records pipelines.
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

    async def ValidateSpec(
        self, request: v1.ValidateSpecRequest, context: Context
    ) -> v1.ValidateSpecResponse:
        """Say what is wrong with a specification."""
        namespace = namespace_of(request.namespace)
        try:
            source = decode_source(request.source)
        except WireError as error:
            if not request.source.HasField("spec"):
                raise
            field = error.path.removeprefix("source.spec").lstrip(".")
            return encode_report(SpecReport((SpecProblem(field, error.problem),)))
        return encode_report(await self._reader.report(namespace, source))

    async def SubmitSource(
        self, request: v1.SubmitSourceRequest, context: Context
    ) -> v1.SubmitSourceResponse:
        """Record a pipeline; durable when it returns."""
        namespace = namespace_of(request.namespace)
        spec = await self._reader.runnable(decode_source(request.source))
        read = submissions.allowed(Submission(namespace, request.request_id, spec), self._rule)
        (outcome,) = await submissions.record(self._plane, self._listings, [read], note_of(context))
        if isinstance(outcome, RpcError):
            raise outcome
        return v1.SubmitSourceResponse(**outcome)
