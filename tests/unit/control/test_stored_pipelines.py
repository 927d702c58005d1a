"""Stored pipelines in the control machine: versions go on, nothing is lost in silence, all of it is recorded."""

from __future__ import annotations

import json

from control.core import events
from control.core.answers import Refusal, RefusalCode, Submission
from control.core.call_note import CallNote
from control.core.effects import Taken, VersionStored
from control.core.machine_config import MachineConfig
from control.core.rows import StoredVersionRow
from control.core.stored_limits import StoredLimits
from control.store import statements
from shoal.model import DeadLetter
from shoal.spec import Pipeline
from tests.unit.control.desk import Desk
from tests.unit.control.world import BEGAN, single

VERSIONS = StoredLimits().versions
NOTE = CallNote("submitter/ann", "", "StoredPipelinesService.CreateStoredPipeline", "10.0.0.1")


def row(content: str, name: str = "street", namespace: str = "default") -> StoredVersionRow:
    return StoredVersionRow(
        namespace, name, 0, "", f"digest of {content}", "", BEGAN, "ann", content.encode()
    )


def store(desk: Desk, content: str, update_of: int = 0, name: str = "street") -> object:
    one = row(content, name)
    return desk.post(lambda call: events.StorePipeline(call, one, update_of, note=NOTE))


def delete(desk: Desk, version: int = 0, name: str = "street") -> object:
    return desk.post(lambda call: events.DeleteStored(call, "default", name, version))


def kept(desk: Desk, *numbers: int, name: str = "street") -> dict[int, bytes]:
    keys = [("default", name, number) for number in numbers or range(1, VERSIONS + 5)]
    found = statements.stored(desk.connection, keys, content=True)
    return {one.version: one.content for one in found}


def refusal(answer: object, code: RefusalCode, reason: str) -> Refusal:
    assert isinstance(answer, Refusal)
    assert (answer.code, answer.reason) == (code, reason)
    return answer


def test_versions_go_on_and_are_there_after_a_restart() -> None:
    desk = Desk()
    assert store(desk, "a") == VersionStored(1, repeated=False)
    assert store(desk, "b", 1) == VersionStored(2, repeated=False)
    assert kept(desk) == {1: b"a", 2: b"b"}
    machine = desk.start()
    head = machine.stored.get("default", "street")
    assert head is not None
    assert (head.newest, head.oldest, head.sizes) == (2, 1, (1, 1))
    assert store(desk, "c", 2) == VersionStored(3, repeated=False)
    told = [json.loads(one.data) for one in desk.outbox() if "caller" in one.type]
    assert [one["name"] for one in told] == [
        f"stored/street/versions/{number}" for number in (1, 2, 3)
    ]


def test_of_two_updates_of_one_version_the_second_is_told_both_numbers() -> None:
    desk = Desk()
    store(desk, "a")
    assert store(desk, "ann's", 1) == VersionStored(2, repeated=False)
    refused = refusal(store(desk, "bob's", 1), RefusalCode.ABORTED, "VERSION_CHANGED")
    assert "has version 2, and the update is of version 1" in refused.message
    assert (refused.metadata["version"], refused.metadata["expected_version"]) == ("2", "1")
    refusal(store(desk, "bob's", 7), RefusalCode.ABORTED, "VERSION_CHANGED")
    assert kept(desk) == {1: b"a", 2: b"ann's"}


def test_what_is_asked_again_is_answered_again() -> None:
    desk = Desk()
    store(desk, "a")
    assert store(desk, "a") == VersionStored(1, repeated=True)
    store(desk, "b", 1)
    assert store(desk, "b", 1) == VersionStored(2, repeated=True)
    assert store(desk, "b", 2) == VersionStored(2, repeated=True), "nothing is new in it"
    refused = refusal(store(desk, "a"), RefusalCode.ALREADY_EXISTS, "STORED_PIPELINE_EXISTS")
    assert "shoal stored update street" in refused.message
    refusal(store(desk, "a", 1), RefusalCode.ABORTED, "VERSION_CHANGED")
    assert kept(desk) == {1: b"a", 2: b"b"}


def test_a_name_that_was_deleted_goes_on_with_the_next_number() -> None:
    desk = Desk()
    refusal(delete(desk), RefusalCode.NOT_FOUND, "UNKNOWN_STORED_PIPELINE")
    refusal(store(desk, "a", 1), RefusalCode.NOT_FOUND, "UNKNOWN_STORED_PIPELINE")
    store(desk, "a")
    store(desk, "b", 1)
    refusal(delete(desk, 1), RefusalCode.ABORTED, "VERSION_CHANGED")
    assert delete(desk, 2) is None
    assert kept(desk) == {}
    machine = desk.start()
    assert machine.stored.get("default", "street") is None
    assert machine.stored.page("default", "", 10) == []
    refusal(store(desk, "a", 2), RefusalCode.NOT_FOUND, "UNKNOWN_STORED_PIPELINE")
    assert store(desk, "a") == VersionStored(3, repeated=False)
    assert store(desk, "b", 3) == VersionStored(4, repeated=False)
    machine = desk.start()
    head = machine.stored.get("default", "street")
    assert head is not None
    assert (head.oldest, head.newest) == (3, 4)


def test_the_oldest_versions_go_and_numbers_stay() -> None:
    desk = Desk()
    for number in range(VERSIONS + 2):
        assert store(desk, str(number), number) == VersionStored(number + 1, repeated=False)
    assert sorted(kept(desk)) == list(range(3, VERSIONS + 3))
    head = desk.start().stored.get("default", "street")
    assert head is not None
    assert (head.oldest, head.newest) == (3, VERSIONS + 2)


def test_a_namespace_has_so_many_names_and_bytes() -> None:
    desk = Desk(MachineConfig(stored=StoredLimits(names=2, size_bytes=100)))
    store(desk, "x" * 60)
    full = refusal(store(desk, "x" * 41, 1), RefusalCode.RESOURCE_EXHAUSTED, "TOO_MANY")
    assert "more than 100 bytes" in full.message
    assert store(desk, "x" * 38, 1) == VersionStored(2, repeated=False)
    assert store(desk, "x", name="a") == VersionStored(1, repeated=False)
    full = refusal(store(desk, "x", name="b"), RefusalCode.RESOURCE_EXHAUSTED, "TOO_MANY")
    assert "has 2 stored pipelines" in full.message
    assert "shoal stored rm" in full.message
    assert store(desk, "y", 1, name="a") == VersionStored(2, repeated=False)
    desk.start()
    refusal(store(desk, "z", 2, name="a"), RefusalCode.RESOURCE_EXHAUSTED, "TOO_MANY")
    delete(desk)
    assert store(desk, "x" * 90, name="b") == VersionStored(1, repeated=False)


def test_deleted_names_are_remembered_only_while_there_is_room() -> None:
    desk = Desk(MachineConfig(stored=StoredLimits(remembered=2)))
    for name in ("a", "b", "c"):
        store(desk, "x", name=name)
        delete(desk, name=name)
    desk.start()
    assert store(desk, "x", name="a") == VersionStored(1, repeated=False)
    assert store(desk, "x", name="c") == VersionStored(2, repeated=False)
    refusal(store(desk, "x", name="d"), RefusalCode.RESOURCE_EXHAUSTED, "TOO_MANY")


def test_names_are_listed_in_order_behind_one() -> None:
    desk = Desk()
    for name in ("c", "a", "d", "b"):
        store(desk, "x", name=name)
    delete(desk, name="c")
    assert [one.name for one in desk.machine.stored.page("default", "", 2)] == ["a", "b"]
    assert [one.name for one in desk.machine.stored.page("default", "b", 2)] == ["d"]
    assert desk.machine.stored.page("other", "", 2) == []


def test_the_bundle_of_a_version_is_named() -> None:
    desk = Desk()
    bundle = "a" * 64
    one = StoredVersionRow("default", "x", 0, "", "d", bundle, BEGAN, "", b"x")
    desk.post(lambda call: events.StorePipeline(call, one, 0))
    assert bundle in statements.kept_names(desk.connection).bundles
    delete(desk, name="x")
    assert bundle not in statements.kept_names(desk.connection).bundles


def submission(spec: Pipeline, asked: bytes, stored: str) -> Submission:
    return Submission("default", "monday", spec, stored=stored, asked=asked)


def test_a_request_id_counts_by_what_was_asked_and_not_by_what_it_meant_then() -> None:
    desk = Desk()
    first = desk.post(
        lambda call: events.Submit(call, submission(single(), b"newest", "stored/s/versions/1"))
    )
    assert isinstance(first, Taken)
    again = desk.post(
        lambda call: events.Submit(call, submission(single("p2"), b"newest", "stored/s/versions/2"))
    )
    assert again == Taken(first.ref, repeated=True)
    gone = Refusal(RefusalCode.NOT_FOUND, "UNKNOWN_STORED_PIPELINE", "it is gone")
    late = Submission("default", "monday", Pipeline("s", ()), refused=gone, asked=b"newest")
    assert desk.post(lambda call: events.Submit(call, late)) == Taken(first.ref, repeated=True)
    new = Submission("default", "tuesday", Pipeline("s", ()), refused=gone, asked=b"newest")
    assert desk.post(lambda call: events.Submit(call, new)) == gone
    other = desk.post(lambda call: events.Submit(call, submission(single("p2"), b"version 2", "")))
    refusal(other, RefusalCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")


def test_a_pipeline_says_which_version_it_is_of_also_after_a_restart_and_when_it_is_revived() -> (
    None
):
    desk = Desk()
    taken = desk.post(
        lambda call: events.Submit(call, submission(single(), b"x", "stored/s/versions/1"))
    )
    assert isinstance(taken, Taken)
    desk.start()
    desk.dial_all("n1")
    desk.fail(taken.ref, "main")
    desk.start()
    letter = desk.pipeline(taken.ref)
    assert (letter.dead_letter, letter.stored) == (DeadLetter.KEPT, "stored/s/versions/1")
    new = desk.post(lambda call: events.Revive(call, taken.ref))
    assert isinstance(new, Taken)
    assert desk.pipeline(new.ref).stored == "stored/s/versions/1"
