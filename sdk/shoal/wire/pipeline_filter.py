"""Which pipelines are meant, in which order, and how many there are, between our nouns and the contract."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

from shoal.model import JobState, PipelineState
from shoal.pipeline_filter import PipelineFilter
from shoal.pipeline_order import PipelineOrder
from shoal.v1 import pipeline_pb2
from shoal.v1 import pipelines_service_pb2 as v1
from shoal.view import PipelineTotals
from shoal.wire import fields
from shoal.wire.codec import checked, codec, enumeration
from shoal.wire.fields import WireError
from shoal.wire.state import JOB_STATE, PIPELINE_STATE

PATTERN_CHARACTERS_MAX: Final = 256
LABELS_MAX: Final = 16

PIPELINE_ORDER = enumeration(PipelineOrder, v1.PipelineOrder, "order", "order of pipelines")


def checked_pattern(value: str, path: str) -> str:
    """Return a part of a name, or a pattern of one.

    Raises:
        WireError: It is too long.
    """
    if len(value) > PATTERN_CHARACTERS_MAX:
        raise WireError(
            path, f"it has {len(value)} characters; at most {PATTERN_CHARACTERS_MAX} are taken"
        )
    return value


def checked_labels(items: Mapping[str, str], path: str) -> Mapping[str, str]:
    """Return the labels that a filter asks for.

    Raises:
        WireError: They are too many or too long.
    """
    if len(items) > LABELS_MAX:
        raise WireError(path, f"it has {len(items)} labels; at most {LABELS_MAX} are taken")
    for text in (*items, *items.values()):
        checked_pattern(text, path)
    return fields.strings(items)


def _states(values: Iterable[int], path: str) -> frozenset[PipelineState]:
    return frozenset(
        PIPELINE_STATE.decode(value, f"{path}[{index}]") for index, value in enumerate(values)
    )


def job_states(values: Iterable[int], path: str = "states") -> frozenset[JobState]:
    """Return states of jobs.

    Raises:
        WireError: One of them is not known.
    """
    return frozenset(
        JOB_STATE.decode(value, f"{path}[{index}]") for index, value in enumerate(values)
    )


encode_pipeline_filter, decode_pipeline_filter = codec(
    PipelineFilter,
    v1.PipelineFilter,
    "filter",
    name=checked(checked_pattern),
    labels=checked(checked_labels, dict),
    creator=checked(checked_pattern),
    states=checked(_states, sorted),
    node=checked(lambda value, path: value and fields.identifier("node", value, path)),
)


def encode_totals(totals: PipelineTotals) -> v1.CountPipelinesResponse:
    """Write how many there are."""
    return v1.CountPipelinesResponse(
        pipelines=[
            v1.PipelineCount(state=PIPELINE_STATE.encode(state), count=count)
            for state, count in sorted(totals.pipelines.items())
        ],
        jobs=[
            pipeline_pb2.JobCount(state=JOB_STATE.encode(state), count=count)
            for state, count in sorted(totals.jobs.items())
        ],
        dead_letters=totals.dead_letters,
    )


def decode_totals(message: v1.CountPipelinesResponse, path: str = "") -> PipelineTotals:
    """Read how many there are.

    Raises:
        WireError: A state is not known.
    """
    return PipelineTotals(
        MappingProxyType(
            {
                PIPELINE_STATE.decode(one.state, fields.at(path, "pipelines")): one.count
                for one in message.pipelines
            }
        ),
        MappingProxyType(
            {
                JOB_STATE.decode(one.state, fields.at(path, "jobs")): one.count
                for one in message.jobs
            }
        ),
        message.dead_letters,
    )
