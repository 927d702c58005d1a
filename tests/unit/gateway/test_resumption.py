"""Where a stream of answers goes on after a cut."""

from hypothesis import given
from hypothesis import strategies as st

from services.gateway.contract import OFFERED
from services.gateway.resumption import LogResumption, PlaceResumption, resumption_of
from shoal import limits
from shoal.v1 import nodes_service_pb2 as nodes
from shoal.v1 import overview_service_pb2 as overview
from shoal.v1 import pipelines_service_pb2 as v1

ATTEMPT = "pipelines/p/jobs/j/attempts/1"


def test_every_stream_that_is_offered_is_resumed_but_a_sample() -> None:
    kinds = {
        one.name: type(resumption_of(one.request(), one.response))
        for one in OFFERED.values()
        if one.streams
    }
    assert kinds == {
        "WatchPipelines": PlaceResumption,
        "WatchNodes": PlaceResumption,
        "WatchMembers": PlaceResumption,
        "WatchEvents": PlaceResumption,
        "WatchOverview": PlaceResumption,
        "ReadLogs": LogResumption,
        "TapPort": type(None),
    }


def test_a_watch_goes_on_behind_the_highest_revision_that_was_passed_on() -> None:
    asked = nodes.WatchNodesRequest(facts=True, since_revision=3)
    resumption = resumption_of(asked, nodes.WatchNodesResponse)
    assert resumption is not None
    assert resumption.request() == asked
    for revision in (0, 7, 5):
        resumption.unseen(nodes.WatchNodesResponse(revision=revision))
    assert resumption.request() == nodes.WatchNodesRequest(facts=True, since_revision=7)
    assert asked.since_revision == 3


def test_events_go_on_behind_the_last_one_that_was_passed_on() -> None:
    asked = v1.WatchEventsRequest(namespace="lab", types=["shoal.job.*"])
    resumption = resumption_of(asked, v1.WatchEventsResponse)
    assert resumption is not None
    resumption.unseen(v1.WatchEventsResponse(sequence=7))
    assert resumption.request() == v1.WatchEventsRequest(
        namespace="lab", types=["shoal.job.*"], after_sequence=7
    )


def test_an_overview_goes_on_from_the_last_token_that_was_passed_on() -> None:
    asked = overview.WatchOverviewRequest(namespace="lab", nodes=overview.OverviewNodes(facts=True))
    resumption = resumption_of(asked, overview.WatchOverviewResponse)
    assert resumption is not None
    for token in ("zz", "aa"):
        resumption.unseen(overview.WatchOverviewResponse(resume_token=token))
    assert resumption.request() == overview.WatchOverviewRequest(
        namespace="lab",
        nodes=overview.OverviewNodes(facts=True),
        resume_token="aa",  # noqa: S106
    )


def chunk(offset: int, data: bytes, stream: int = 1) -> v1.ReadLogsResponse:
    return v1.ReadLogsResponse(
        chunk=v1.LogChunk(
            attempt=ATTEMPT,
            epoch=1,
            stream=v1.LogStream.ValueType(stream),
            offset=offset,
            data=data,
        )
    )


LOG = bytes(range(97, 97 + 26)) * 2


@given(
    st.lists(
        st.tuples(st.integers(1, 2), st.integers(0, len(LOG)), st.integers(1, 20)), max_size=20
    )
)
def test_whatever_is_sent_again_each_byte_of_a_log_comes_once_and_in_order(
    begun: list[tuple[int, int, int]],
) -> None:
    """The controller begins each log again at any byte that was there, in pieces of any size, as often as it likes."""
    resumption = LogResumption(v1.ReadLogsRequest(name="p", tail_lines=5))
    passed = {1: b"", 2: b""}
    for stream, offset, size in [*begun, (1, 0, 7), (2, 0, 7)]:
        begin = min(offset, len(passed[stream]))  # it leaves nothing out
        for at in range(begin, len(LOG), size):
            new = resumption.unseen(chunk(at, LOG[at : at + size], stream))
            if isinstance(new, v1.ReadLogsResponse):
                assert new.chunk.offset == len(passed[stream])
                passed[stream] += new.chunk.data
    assert passed == {1: LOG, 2: LOG}


def test_a_log_of_which_the_end_was_asked_for_is_asked_for_whole_once_something_was_seen() -> None:
    resumption = LogResumption(v1.ReadLogsRequest(name="p", tail_lines=5, follow=True))
    assert resumption.request() == v1.ReadLogsRequest(name="p", tail_lines=5, follow=True)
    assert resumption.unseen(chunk(10, b"abc")) is not None
    asked = resumption.request()
    assert asked == v1.ReadLogsRequest(name="p", follow=True, places=[place(13)])
    # A controller of before sends all of it nevertheless.
    assert resumption.unseen(chunk(0, b"0123456789abc")) is None
    assert resumption.request() == asked


def place(offset: int, stream: int = 1) -> v1.LogPlace:
    return v1.LogPlace(
        attempt=ATTEMPT, epoch=1, stream=v1.LogStream.ValueType(stream), offset=offset
    )


def test_a_page_that_says_where_it_goes_on_is_gone_on_with_from_there() -> None:
    first = v1.ReadLogsRequest(name="p", tail_lines=5, places=[place(10), place(3, 2)])
    resumption = LogResumption(first)
    assert resumption.request() == first
    assert resumption.unseen(chunk(6, b"6789")) is None
    assert resumption.request() == first
    new = resumption.unseen(chunk(6, b"6789abc"))
    assert isinstance(new, v1.ReadLogsResponse)
    assert (new.chunk.offset, new.chunk.data) == (10, b"abc")
    assert resumption.request() == v1.ReadLogsRequest(name="p", places=[place(13), place(3, 2)])


def test_the_logs_that_grew_last_are_named_and_no_more_than_a_request_may_name() -> None:
    resumption = LogResumption(v1.ReadLogsRequest(name="p"))
    for number in range(limits.LOG_PLACES_MAX + 2):
        response = chunk(0, b"a")
        response.chunk.epoch = number
        resumption.unseen(response)
    again = chunk(1, b"b")
    again.chunk.epoch = 0
    assert resumption.unseen(again) is not None
    asked = resumption.request()
    assert isinstance(asked, v1.ReadLogsRequest)
    named = {one.epoch: one.offset for one in asked.places}
    assert len(asked.places) == len(named) == limits.LOG_PLACES_MAX
    assert named[0] == 2
    assert named.keys().isdisjoint({1, 2})
