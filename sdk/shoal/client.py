"""The asynchronous client of a controller: everything that the `shoal` command does, for programs.

async with Client("127.0.0.1:7470") as client:
submitted = await client.submit(pipeline)
ended = await client.wait(submitted.pipeline.name)
"""

import hashlib

from shoal.calls.identities import IdentityCalls
from shoal.calls.lists import ListCalls
from shoal.calls.nodes import NodeCalls
from shoal.calls.overview import OverviewCalls
from shoal.calls.pipelines import EventNews, EventPage, Submitted
from shoal.calls.secrets import SecretCalls
from shoal.calls.specs import SpecCalls
from shoal.calls.stored import StoredCalls
from shoal.calls.streams import StreamCalls
from shoal.view import SnapshotEnd

__all__ = ["Client", "EventNews", "EventPage", "SnapshotEnd", "Submitted", "request_key"]


class Client(
    StreamCalls,
    ListCalls,
    OverviewCalls,
    NodeCalls,
    IdentityCalls,
    SecretCalls,
    SpecCalls,
    StoredCalls,
):
    """All requests to one controller, on one connection; use it with `async with`.

    Args: see `shoal.calls.calls.ControllerCalls`.
    """


def request_key(*parts: str) -> str:
    """Make an idempotency key out of what makes a submission the same."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
