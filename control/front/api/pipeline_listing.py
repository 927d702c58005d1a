"""What a request says of which pipelines it is about, in which order, and how much of each."""

import asyncio
from dataclasses import replace
from typing import Final, Protocol

from control.core.pipeline_query import PipelineQuery
from control.front.api.light_picture import light_picture
from control.front.api.picture import picture
from control.front.api.request import namespace_of, page_size_of, states_of
from control.front.page_token import PageTokens
from control.front.read_model import ReadModel
from control.front.rpc_status import invalid
from shoal import limits
from shoal.pipeline_filter import EVERY_PIPELINE, PipelineFilter
from shoal.pipeline_order import PipelineOrder
from shoal.v1 import pipeline_pb2
from shoal.v1 import pipelines_service_pb2 as v1
from shoal.view import PipelineView
from shoal.wire.pipeline_filter import PIPELINE_ORDER, decode_pipeline_filter

_WRITTEN_AT_ONCE: Final = 100
"""Light pictures that are written before something else has its turn."""


class _Filtered(Protocol):
    """A request that says which pipelines it is about."""

    @property
    def filter(self) -> v1.PipelineFilter: ...


def filter_of(request: _Filtered) -> PipelineFilter:
    """Return which pipelines are asked for.

    Raises:
        WireError: a field breaks the contract.
    """
    message = request.filter
    return decode_pipeline_filter(message) if message.ByteSize() else EVERY_PIPELINE


def is_light(view: int) -> bool:
    """Whether light pictures are asked for.

    Raises:
        RpcError: it is no view that this version knows.
    """
    if view not in v1.PipelineView.values():
        raise invalid(
            "INVALID_FIELD", f"view is {view}; use 0 or 1 for all, 2 for light", field="view"
        )
    return view == v1.PIPELINE_VIEW_LIGHT


async def list_pipelines(
    shown: ReadModel, request: v1.ListPipelinesRequest
) -> v1.ListPipelinesResponse:
    """List pipelines as a request asks for them; a page has about as many bytes as a message may have."""
    asked = filter_of(request)
    if states := states_of(request.states):
        both = states & asked.states if asked.states else states
        if not both:
            return v1.ListPipelinesResponse()  # none is in two states at once
        asked = replace(asked, states=both)
    asked = replace(asked, dead_letters=asked.dead_letters or request.dead_letters)
    order = PIPELINE_ORDER.decode(request.order, "order")
    query = PipelineQuery(namespace_of(request.namespace), asked, order)
    size = page_size_of(request.page_size)
    tokens = PageTokens("ListPipelines", request)
    behind = tokens.read(int, 2 if order is PipelineOrder.ENDED else 1)
    said: list[pipeline_pb2.Pipeline] = []
    if is_light(request.view):
        summed_up = await shown.summaries(query, size, behind)
        for begin in range(0, len(summed_up.items), _WRITTEN_AT_ONCE):
            said += map(light_picture, summed_up.items[begin : begin + _WRITTEN_AT_ONCE])
            await asyncio.sleep(0)
        return v1.ListPipelinesResponse(
            pipelines=said, next_page_token=tokens.write(summed_up.behind)
        )
    room = limits.BATCH_BYTES_MAX

    def fits(view: PipelineView) -> bool:
        nonlocal room
        said.append(picture(view))
        room -= said[-1].ByteSize()
        return room >= 0

    page = await shown.pipelines(query, size, behind, fits=fits)
    return v1.ListPipelinesResponse(
        pipelines=said[: len(page.items)], next_page_token=tokens.write(page.behind)
    )
