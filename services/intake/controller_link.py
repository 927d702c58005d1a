"""The intake's connection to a controller, as a submitter whose certificate is kept fresh."""

import asyncio
import contextlib
import datetime as dt
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, TypeVar

from services.intake.message import PipelineRequest
from services.intake.pipeline_template import PipelineTemplate
from services.intake.source import ServerAwayError
from services.runtime.log import fields
from shoal.bundle import BundleError, pack
from shoal.cli.identity_folder import credentials_in
from shoal.cli.renewal import renew_if_due
from shoal.client import Client, Submitted
from shoal.errors import ShoalError
from shoal.specfile.load import SpecFile
from shoal.specfile.mark import SpecFileError

LOG = logging.getLogger(__name__)

T = TypeVar("T")

_RENEW_SECONDS: Final = 3600.0
_CALL_SECONDS: Final = 20.0
"""How long a submission may take: a controller that lists a large folder, or waits for S3, needs a while."""
_REFUSALS: Final = frozenset(
    {"INVALID_ARGUMENT", "ALREADY_EXISTS", "FAILED_PRECONDITION", "NOT_FOUND", "OUT_OF_RANGE"}
)
"""Codes that speak of what was submitted; all others speak of the controller, or of this intake's identity."""
_REUSED: Final = "REQUEST_ID_REUSED"


class RequestRefusedError(Exception):
    """What a message asks for is no good; the text says why."""


@dataclass(eq=False)
class ControllerLink:
    """Submits to one controller; `run` keeps the connection.

    Args:
        address: `host:port`.
        namespace: whose pipelines they are.
        identity: folder of the credentials of a submitter; None for a controller with --insecure.
        now: the time.
    """

    address: str
    namespace: str
    identity: Path | None
    now: Callable[[], dt.datetime]
    _client: Client | None = field(default=None, init=False)

    async def run(self) -> None:
        """Keep a connection until cancelled; a renewed certificate makes another one."""
        while True:
            try:
                proved = None
                if self.identity is not None:
                    await renew_if_due(self.identity, self.address, self.now())
                    proved = await asyncio.to_thread(credentials_in, self.identity)
            except ShoalError as error:
                LOG.error("the identity cannot be used", extra=fields(why=error.message))  # noqa: TRY400 - it says all
                await asyncio.sleep(_CALL_SECONDS)
                continue
            client = Client(
                self.address,
                namespace=self.namespace,
                credentials=proved,
                deadline_seconds=_CALL_SECONDS,
            )
            async with client:
                self._client = client
                try:
                    await self._until_renewed()
                finally:
                    self._client = None

    async def _until_renewed(self) -> None:
        while True:
            await asyncio.sleep(_RENEW_SECONDS)
            if self.identity is not None and await renew_if_due(
                self.identity, self.address, self.now()
            ):
                return

    async def submit(
        self,
        requests: Sequence[PipelineRequest],
        template: PipelineTemplate,
        origin: str,
        *,
        ids_given: bool,
    ) -> tuple[str, ...]:
        """Submit pipelines, and return their names once they are recorded; each request id makes one.

        Args:
            requests: what to submit.
            template: what is filled with their values.
            origin: what to call the message in errors.
            ids_given: whether no two messages can have one id; then a known one with another specification is
                the same message under an earlier template.

        Raises:
            RequestRefusedError: one of them is refused.
            ServerAwayError: the controller, or its archive, cannot take them now.
        """
        client = self._client
        if client is None:
            raise ServerAwayError(f"there is no connection to the controller at {self.address} yet")
        return tuple(
            [
                await self._submit(client, request, template, origin, ids_given=ids_given)
                for request in requests
            ]
        )

    async def asked(self, question: Callable[[Client], Awaitable[T]]) -> T:
        """Ask the controller something, and return its answer.

        Raises:
            RequestRefusedError: there is nothing of that name.
            ServerAwayError: the controller does not answer now.
        """
        client = self._client
        if client is None:
            raise ServerAwayError(f"there is no connection to the controller at {self.address} yet")
        try:
            return await question(client)
        except ShoalError as error:
            if error.code in _REFUSALS:
                raise RequestRefusedError(error.message) from error
            raise ServerAwayError(error.message) from error

    async def _submit(
        self,
        client: Client,
        request: PipelineRequest,
        template: PipelineTemplate,
        origin: str,
        *,
        ids_given: bool,
    ) -> str:
        try:
            found = await asyncio.to_thread(template.fill, request.values, origin)
            submitted = await _submitted(client, found, request.request_id)
        except SpecFileError as error:
            raise RequestRefusedError(
                f"with this message the template is no specification: {error}"
            ) from error
        except BundleError as error:
            raise ServerAwayError(
                f"the bundle of the template cannot be packed: {error}"
            ) from error
        except ShoalError as error:
            if error.reason == _REUSED and ids_given:
                return f"{error.metadata.get('pipeline', 'a pipeline')} of an earlier template"
            if error.code in _REFUSALS or error.reason == "LOCAL_JOBS":
                raise RequestRefusedError(error.message) from error
            raise ServerAwayError(error.message) from error
        return submitted.pipeline.name


async def _submitted(client: Client, found: SpecFile, request_id: str) -> Submitted:
    pipeline = found.pipeline
    if found.bundle is not None:
        with contextlib.ExitStack() as stack:
            packed = await asyncio.to_thread(stack.enter_context, pack(found.bundle))
            await client.ensure_bundle(packed)
            pipeline = replace(pipeline, bundle_digest=packed.digest)
    return await client.submit(pipeline, request_id=request_id)
