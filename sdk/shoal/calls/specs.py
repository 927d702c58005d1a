"""Requests about specifications as text, which the controller reads."""

from shoal.calls.calls import ControllerCalls
from shoal.calls.pipelines import Submitted
from shoal.connection import decoded
from shoal.spec_report import SpecReport
from shoal.spec_text import PipelineSource
from shoal.v1 import specs_service_pb2 as v1
from shoal.wire.pipeline_source import encode_source
from shoal.wire.spec_report import decode_report
from shoal.wire.view import decode_pipeline


class SpecCalls(ControllerCalls):
    """What can be asked about specifications."""

    async def validate(self, source: PipelineSource) -> SpecReport:
        """Say what is wrong with a specification, and how it would run; nothing is recorded.

        Raises:
            ShoalError: the text is longer than a controller reads, or the caller may not.
        """
        request = v1.ValidateSpecRequest(namespace=self.namespace, source=encode_source(source))
        return decoded(decode_report, await self._call(self._held.specs.ValidateSpec, request))

    async def submit_source(self, source: PipelineSource, *, request_id: str = "") -> Submitted:
        """Record a pipeline whose specification the controller reads.

        Args:
            source: the specification; its bundle has to be there already, see `ensure_bundle`.
            request_id: idempotency key; without one, only retries of this call are recognised.

        Raises:
            ShoalError: it was refused, or the same key was used for another specification.
        """
        request = v1.SubmitSourceRequest(
            namespace=self.namespace,
            request_id=request_id or self._new_id(),
            source=encode_source(source),
        )
        answer = await self._call(self._held.specs.SubmitSource, request)
        return Submitted(decoded(decode_pipeline, answer.pipeline), answer.repeated_request)
