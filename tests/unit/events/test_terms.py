"""What brokers take, and how fast."""

from datetime import UTC, datetime

from services.events.broker_url import AWS_IOT, check_client_id
from services.events.entry import OutboxEntry
from services.events.pace import Pace
from services.events.terms import UNKNOWN, terms_of

LONGEST = "n" * 63
TOPIC_BYTES_MAX = 256
SLASHES_MAX = 7


def test_no_topic_of_ours_is_too_long_or_too_deep_for_aws_iot() -> None:
    for namespace, subject in (
        (LONGEST, f"pipelines/{LONGEST}/jobs/{LONGEST}"),
        ("", f"nodes/{LONGEST}"),
        ("", f"callers/submitter/{LONGEST}/{LONGEST}"),
        ("", f"identities/submitter/{LONGEST}/{LONGEST}"),
    ):
        entry = OutboxEntry(1, "id", "shoal.job.running", namespace, subject, datetime.now(UTC))
        for topic in (entry.events_topic, entry.state_topic):
            assert len(topic.encode()) <= TOPIC_BYTES_MAX
            assert topic.count("/") <= SLASHES_MAX
    assert check_client_id(f"shoal-{LONGEST}")


def test_aws_iot_takes_half_of_what_others_take() -> None:
    known = terms_of(AWS_IOT)
    assert known.payload_bytes(("t",), 0) == 128 * 1024
    assert terms_of("") == UNKNOWN
    assert UNKNOWN.payload_bytes(("t",), 0) == 256 * 1024


def test_messages_leave_one_after_the_other() -> None:
    pace = Pace(messages_a_second=100, bytes_a_second=1000)
    assert pace.wait_seconds(1, 5.0) == 0
    assert abs(pace.wait_seconds(500, 5.0) - 0.01) < 1e-9
    assert abs(pace.wait_seconds(1, 5.0) - 0.51) < 1e-9
    assert pace.wait_seconds(1, 9.0) == 0


def test_without_bounds_nothing_waits() -> None:
    pace = Pace(0, 0)
    assert [pace.wait_seconds(1 << 20, 1.0) for _ in range(3)] == [0, 0, 0]
