"""A pipeline as one of many: without its specification and its jobs, and in some hundred bytes."""

from dataclasses import replace
from typing import Any, Final

from shoal import limits
from shoal.v1 import pipeline_pb2
from shoal.view import PipelineSummary, PipelineView, Unlisted
from shoal.wire.codec import given_of
from shoal.wire.view import encode_summary

_GIVEN: Final = given_of(encode_summary)


def light_picture(view: PipelineView | PipelineSummary) -> pipeline_pb2.Pipeline:
    """Write the light picture of a pipeline."""
    return pipeline_pb2.Pipeline(**light_given(view))


def light_given(view: PipelineView | PipelineSummary) -> Any:
    """Return what a message is given that carries the light picture of a pipeline."""
    summary = PipelineSummary.of(view) if isinstance(view, PipelineView) else view
    reason = summary.reason
    if len(reason.message) > limits.SHORT_CHARACTERS_MAX:
        short = replace(reason, message=limits.cut(reason.message, limits.SHORT_CHARACTERS_MAX))
        summary = replace(summary, reason=short)
    return _GIVEN(summary)


def unlisted_given(one: PipelineView | PipelineSummary | Unlisted) -> Any:
    """Return what a message is given that says of a pipeline that it does not match the filter of a watch."""
    return {
        "id": one.id,
        "name": one.name,
        "namespace": one.namespace,
        "unlisted": True,
    }
