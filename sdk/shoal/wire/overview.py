"""What an overview is asked for and tells, between our nouns and the contract."""

from collections.abc import Iterable

from shoal.overview import OverviewNews, OverviewPart, OverviewWish
from shoal.v1 import overview_service_pb2 as v1
from shoal.v1 import pipelines_service_pb2 as pipelines
from shoal.wire.fields import each
from shoal.wire.pipeline_filter import decode_totals, encode_pipeline_filter
from shoal.wire.view import decode_event, decode_member, decode_node, decode_summary

_PARTS = {part.value: part for part in OverviewPart}


def encode_overview_wish(
    wish: OverviewWish, namespace: str, resume_token: str
) -> v1.WatchOverviewRequest:
    """Write what is asked for."""
    request = v1.WatchOverviewRequest(namespace=namespace, resume_token=resume_token)
    if wish.pipelines is not None:
        request.pipelines.filter.CopyFrom(encode_pipeline_filter(wish.pipelines))
        request.pipelines.view = pipelines.PIPELINE_VIEW_LIGHT
    if wish.nodes:
        request.nodes.CopyFrom(v1.OverviewNodes(facts=wish.facts))
    if wish.members:
        request.members.SetInParent()
    if wish.events is not None:
        request.events.CopyFrom(v1.OverviewEvents(types=wish.events, last=wish.last_events))
    if wish.counts is not None:
        request.counts.filter.CopyFrom(encode_pipeline_filter(wish.counts))
    return request


def decode_overview_news(message: v1.WatchOverviewResponse) -> OverviewNews:
    """Read what is told; parts that a newer controller tells of are left out.

    Raises:
        WireError: a field breaks the contract.
    """
    return OverviewNews(
        _parts(message.begun),
        each(message.pipelines, "pipelines", decode_summary),
        each(message.nodes, "nodes", decode_node),
        each(message.members, "members", decode_member),
        each(message.events, "events", decode_event),
        decode_totals(message.counts, "counts") if message.HasField("counts") else None,
        _parts(message.complete),
        message.events_missing,
        message.resume_token,
    )


def _parts(numbers: Iterable[int]) -> frozenset[OverviewPart]:
    return frozenset(_PARTS[number] for number in numbers if number in _PARTS)
