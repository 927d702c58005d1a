"""What one caller may ask for, by a clock that the test drives."""

import pytest

from control.front.access.quotas import AGENT_CALLS_PER_SECOND, CallerLimits, Quotas
from control.front.access.refused_calls import CALLERS_MAX as COUNTED_MAX
from control.front.access.refused_calls import OTHERS, RefusalCount
from services.runtime.call_rates import CALLERS_MAX
from services.runtime.rpc import RpcError
from shoal.errors import from_status


class Hand:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def over(ask: object) -> RpcError:
    with pytest.raises(RpcError) as error:
        ask()  # type: ignore[operator]
    assert error.value.reason == "QUOTA"
    return error.value


def refused(ask: object) -> str:
    return over(ask).message


def test_calls_refill_with_time_and_are_counted_per_caller() -> None:
    clock = Hand()
    quotas = Quotas(CallerLimits(calls_per_second=2), clock)
    for _ in range(4):
        quotas.call("viewer/ann")
    said = refused(lambda: quotas.call("viewer/ann"))
    assert "viewer/ann" in said
    assert "2 calls a second" in said
    assert "--caller-calls" in said
    quotas.call("viewer/bob")
    clock.now = 0.5
    quotas.call("viewer/ann")
    refused(lambda: quotas.call("viewer/ann"))


def test_a_caller_that_comes_when_it_was_told_to_is_let_in_and_not_a_moment_earlier() -> None:
    clock = Hand()
    quotas = Quotas(CallerLimits(calls_per_second=0.25, spec_bytes=3600), clock)
    quotas.call("viewer/ann")
    clock.now = 1.0
    told = over(lambda: quotas.call("viewer/ann"))
    assert told.retry_seconds == 3.0
    assert "call again in 3 s" in told.message
    clock.now += told.retry_seconds - 0.01
    refused(lambda: quotas.call("viewer/ann"))
    clock.now += 0.02
    quotas.call("viewer/ann")
    quotas.spec("submitter/ann", 3600)
    assert over(lambda: quotas.spec("submitter/ann", 90)).retry_seconds == 90.0
    never = over(lambda: quotas.spec("submitter/ann", 3601))
    assert never.retry_seconds == 0.0
    assert "send less" in never.message


def test_when_to_call_again_arrives_at_the_client() -> None:
    quotas = Quotas(CallerLimits(calls_per_second=0.5), Hand())
    quotas.call("viewer/ann")
    ((_, status),) = over(lambda: quotas.call("viewer/ann")).trailing_metadata()
    told = from_status("RESOURCE_EXHAUSTED", "", status)
    assert (told.reason, told.retry_seconds) == ("QUOTA", 2.0)
    ((_, status),) = over(lambda: quotas.spec("viewer/ann", 5 << 30)).trailing_metadata()
    assert from_status("RESOURCE_EXHAUSTED", "", status).retry_seconds == 0.0


def test_the_setting_for_people_does_not_hold_up_an_agent() -> None:
    quotas = Quotas(CallerLimits(calls_per_second=1), Hand())
    for _ in range(int(2 * AGENT_CALLS_PER_SECOND)):
        quotas.call("node/cam-1", agent=True)
    said = over(lambda: quotas.call("node/cam-1", agent=True))
    assert said.retry_seconds == 1 / AGENT_CALLS_PER_SECOND


def test_watches_are_given_back() -> None:
    quotas = Quotas(CallerLimits(watches=1), Hand())
    with quotas.watch("viewer/ann"):
        with pytest.raises(RpcError, match="--caller-watches"), quotas.watch("viewer/ann"):
            pass
        with quotas.watch("viewer/bob"):
            pass
    with quotas.watch("viewer/ann"):
        pass


def test_bytes_refill_within_an_hour() -> None:
    clock = Hand()
    quotas = Quotas(CallerLimits(spec_bytes=100, bundle_bytes=1000), clock)
    quotas.spec("submitter/ann", 100)
    assert "--caller-spec-bytes" in refused(lambda: quotas.spec("submitter/ann", 1))
    quotas.bundle("submitter/ann", 1000)
    assert "--caller-bundle-bytes" in refused(lambda: quotas.bundle("submitter/ann", 1))
    clock.now = 3600.0
    quotas.spec("submitter/ann", 100)
    quotas.bundle("submitter/ann", 1000)


def test_what_is_remembered_of_callers_is_bounded() -> None:
    quotas = Quotas(CallerLimits(watches=1), Hand())
    with quotas.watch("first"):
        for number in range(CALLERS_MAX + 10):
            quotas.call(f"viewer/v{number}")
            quotas.spec(f"viewer/v{number}", 1)
        assert len(quotas._uses) == len(quotas._rates) == CALLERS_MAX
        refused(lambda: quotas.watch("first").__enter__())


def test_refusals_of_many_callers_are_counted_as_one() -> None:
    count = RefusalCount()
    for number in range(COUNTED_MAX + 5):
        count.count(f"viewer/v{number}", "X.Y", "10.0.0.7", "NOT_ALLOWED")
    taken = count.take()
    assert len(taken) == COUNTED_MAX + 1
    assert taken[OTHERS].reasons.total() == 5
    assert count.take() == {}
    count.put_back(taken)
    assert count.take()[OTHERS].reasons.total() == 5
