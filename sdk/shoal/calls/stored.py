"""Requests about stored pipelines."""

from collections.abc import AsyncGenerator, Mapping

from shoal.calls.calls import ControllerCalls
from shoal.calls.pipelines import Submitted
from shoal.connection import decoded
from shoal.model import no_strings
from shoal.spec_text import PipelineSource
from shoal.stored_pipeline import StoredPipelineView
from shoal.v1 import stored_pipelines_service_pb2 as v1
from shoal.wire.pipeline_source import encode_source
from shoal.wire.stored_pipeline import STORED_PIPELINE
from shoal.wire.view import decode_pipeline


class StoredCalls(ControllerCalls):
    """What can be asked of the stored pipelines of the client's namespace."""

    async def store(
        self, name: str, source: PipelineSource, *, description: str = ""
    ) -> StoredPipelineView:
        """Keep the first version of a name; its bundle has to be there already, see `ensure_bundle`.

        Raises:
            ShoalError: the name is there with another content, or the specification cannot run.
        """
        request = v1.CreateStoredPipelineRequest(
            namespace=self.namespace,
            name=name,
            description=description,
            source=encode_source(source),
        )
        answer = await self._call(self._held.stored.CreateStoredPipeline, request)
        return decoded(STORED_PIPELINE.decode, answer.stored)

    async def update_stored(
        self, name: str, source: PipelineSource, *, version: int, description: str = ""
    ) -> StoredPipelineView:
        """Keep the next version of a name.

        Args:
            name: what it is called.
            source: the specification.
            version: the newest version, which this is an update of.
            description: for people.

        Raises:
            ShoalError: the newest version is another one (`VERSION_CHANGED`), or the specification cannot run.
        """
        request = v1.UpdateStoredPipelineRequest(
            namespace=self.namespace,
            name=name,
            expected_version=version,
            description=description,
            source=encode_source(source),
        )
        answer = await self._call(self._held.stored.UpdateStoredPipeline, request)
        return decoded(STORED_PIPELINE.decode, answer.stored)

    async def get_stored(self, name: str, version: int = 0) -> StoredPipelineView:
        """Return a version with its content; 0 is the newest.

        Raises:
            ShoalError: there is none.
        """
        request = v1.GetStoredPipelineRequest(namespace=self.namespace, name=name, version=version)
        answer = await self._call(self._held.stored.GetStoredPipeline, request)
        return decoded(STORED_PIPELINE.decode, answer.stored)

    async def list_stored(
        self, *, page_size: int = 100
    ) -> AsyncGenerator[StoredPipelineView, None]:
        """List the names of the namespace, each with its newest version, page by page.

        Raises:
            ShoalError: a page could not be read.
        """
        pages = self._pages(
            self._held.stored.ListStoredPipelines,
            lambda token: v1.ListStoredPipelinesRequest(
                namespace=self.namespace, page_size=page_size, page_token=token
            ),
        )
        async for page in pages:
            for one in page.stored:
                yield decoded(STORED_PIPELINE.decode, one)

    async def stored_versions(self, name: str) -> tuple[StoredPipelineView, ...]:
        """List the versions of a name that are kept, newest first.

        Raises:
            ShoalError: there is no such name.
        """
        request = v1.ListStoredVersionsRequest(namespace=self.namespace, name=name)
        answer = await self._call(self._held.stored.ListStoredVersions, request)
        return tuple(decoded(STORED_PIPELINE.decode, one) for one in answer.stored)

    async def delete_stored(self, name: str, *, version: int = 0) -> None:
        """Forget all versions of a name, with a `version` only if that is the newest one.

        Raises:
            ShoalError: there is no such name, or its newest version is another one.
        """
        request = v1.DeleteStoredPipelineRequest(
            namespace=self.namespace, name=name, expected_version=version
        )
        await self._call(self._held.stored.DeleteStoredPipeline, request)

    async def submit_stored(
        self,
        name: str,
        *,
        version: int = 0,
        values: Mapping[str, str] = no_strings(),
        request_id: str = "",
    ) -> Submitted:
        """Record a pipeline of a version.

        Args:
            name: what it is called.
            version: which one; 0 is the newest.
            values: of parameters, as text; the others have their defaults.
            request_id: idempotency key; without one, only retries of this call are recognised.

        Raises:
            ShoalError: it was refused, or the same key was used for something else.
        """
        request = v1.SubmitStoredPipelineRequest(
            namespace=self.namespace,
            name=name,
            version=version,
            values=values,
            request_id=request_id or self._new_id(),
        )
        answer = await self._call(self._held.stored.SubmitStoredPipeline, request)
        return Submitted(decoded(decode_pipeline, answer.pipeline), answer.repeated_request)
