"""Watches: snapshot, mark, changes; resuming; being cut off."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest

from control.core.errors import ClosingError, WatcherTooSlowError
from control.front.watch import Watched, each
from shoal.view import SnapshotEnd


@dataclass(frozen=True)
class Thing:
    name: str
    revision: int


def things(changes_kept: int = 100, pending_max: int = 100) -> Watched[str, Thing]:
    return Watched(10, changes_kept=changes_kept, pending_max=pending_max)


def show(watched: Watched[str, Thing], *named: tuple[str, int]) -> None:
    for name, revision in named:
        watched.show(name, Thing(name, revision))


async def taken(
    watched: Watched[str, Thing], count: int, since: int = 0, only: str = "", names: str = ""
) -> list[tuple[str, int]]:
    """What the first items of a new watch are; a mark has no name."""
    everything = {name: watched.changed(name) or Thing("a", 10) for name in ("a", *names)}
    snapshot = [thing for name, thing in everything.items() if only in {"", name}]
    with watched.watch(
        since, lambda thing: only in {"", thing.name}, lambda: each(snapshot)
    ) as items:
        found = [await anext(items) for _ in range(count)]
    return [("" if isinstance(one, SnapshotEnd) else one.name, one.revision) for one in found]


async def test_a_new_watch_begins_with_everything_and_a_mark() -> None:
    watched = things()
    show(watched, ("b", 11))
    assert await taken(watched, 3, names="b") == [("a", 10), ("b", 11), ("", 11)]
    assert await taken(watched, 2, only="b", names="b") == [("b", 11), ("", 11)]


async def test_a_watch_resumes_with_what_changed_since_as_it_is_now() -> None:
    watched = things()
    show(watched, ("b", 11), ("c", 12), ("b", 13))
    assert await taken(watched, 2, since=11) == [("c", 12), ("b", 13)]
    assert await taken(watched, 1, since=12) == [("b", 13)]
    with watched.watch(13, lambda _: True, lambda: each(())) as items:
        show(watched, ("a", 14))
        assert await anext(items) == Thing("a", 14)


@pytest.mark.parametrize("since", [9, 14, 1 << 40])
async def test_an_unknown_revision_begins_anew(since: int) -> None:
    watched = things()
    show(watched, ("b", 13))
    assert (await taken(watched, 3, since=since, names="b"))[-1] == ("", 13)


async def test_changes_that_are_no_longer_known_begin_anew() -> None:
    watched = things(changes_kept=2)
    show(watched, ("b", 11), ("c", 12), ("d", 13), ("e", 14))
    assert await taken(watched, 2, since=12) == [("d", 13), ("e", 14)]
    assert len(await taken(watched, 6, since=11, names="bcde")) == 6


async def test_changes_of_one_thing_become_one_and_revisions_rise() -> None:
    watched = things()
    with watched.watch(10, lambda _: True, lambda: each(())) as items:
        show(watched, ("a", 11), ("b", 12), ("a", 13))
        assert [await anext(items) for _ in range(2)] == [Thing("b", 12), Thing("a", 13)]


async def test_who_does_not_keep_up_is_cut_off() -> None:
    watched = things(pending_max=2)
    with watched.watch(10, lambda _: True, lambda: each(())) as items:
        show(watched, ("b", 11), ("c", 12), ("d", 13), ("e", 14))
        with pytest.raises(WatcherTooSlowError, match="2 changes waited"):
            await anext(items)


async def test_all_watches_can_be_ended() -> None:
    watched = things()
    with watched.watch(10, lambda _: True, lambda: each(())) as items:
        watched.cut_off(ClosingError("good-bye"))
        with pytest.raises(ClosingError, match="good-bye"):
            await anext(items)


async def test_what_waits_is_taken_together_and_as_it_is_when_it_is_taken() -> None:
    watched = things()
    with watched.watch(10, lambda _: True, lambda: each(()), at_once=3) as items:
        show(watched, ("a", 11), ("b", 12), ("c", 13), ("a", 14), ("d", 15))
        found = [(await anext(items), items.more) for _ in range(3)]
        assert found == [
            (Thing("b", 12), True),
            (Thing("c", 13), True),
            (Thing("a", 14), False),
        ]
        show(watched, ("d", 16), ("a", 17))
        assert [await anext(items), await anext(items)] == [Thing("d", 16), Thing("a", 17)]
        assert not items.more
        assert items.resume == 17


async def test_a_snapshot_is_taken_together_and_its_mark_comes_alone() -> None:
    watched = things()
    snapshot = [Thing(name, 5) for name in "abcde"]
    with watched.watch(0, lambda _: True, lambda: each(snapshot), at_once=2) as items:
        found = [(await anext(items), items.more, items.resume) for _ in range(6)]
    assert [more for _, more, _ in found] == [True, False, True, False, False, False]
    assert [resume for *_, resume in found] == [0, 0, 0, 0, 0, 10]
    assert found[-1][0] == SnapshotEnd(10)


async def test_one_that_watches_one_thing_hears_of_that_alone() -> None:
    watched = things(pending_max=2)
    show(watched, ("a", 11), ("b", 12))
    with (
        watched.watch(10, lambda thing: thing.name == "a", lambda: each(()), only="a") as of_a,
        watched.watch(11, lambda thing: thing.name == "a", lambda: each(()), only="a") as later,
        watched.watch(12, lambda _: True, lambda: each(())) as of_all,
    ):
        assert await anext(of_a) == Thing("a", 11)
        show(watched, ("b", 13), ("c", 14), ("b", 15), ("d", 16), ("e", 17))
        show(watched, ("a", 18))
        assert await anext(of_a) == await anext(later) == Thing("a", 18)
        with pytest.raises(WatcherTooSlowError):
            await anext(of_all)
        watched.cut_off(ClosingError("over"))
        for one in (of_a, later):
            with pytest.raises(ClosingError, match="over"):
                await anext(one)
    show(watched, ("a", 19))  # nobody watches it any more, which is no mistake
    assert await taken(watched, 1, since=18) == [("a", 19)]


async def test_what_goes_on_is_held_for_a_while_and_what_has_ended_is_shown_at_once() -> None:
    watched = things()
    now = asyncio.get_running_loop().time
    with watched.watch(
        10, lambda _: True, lambda: each(()), at_once=10, ended=lambda thing: thing.name == "end"
    ) as items:
        items.hold(now() + 60.0)
        show(watched, ("a", 11), ("b", 12), ("end", 13), ("a", 14))
        assert await anext(items) == Thing("end", 13)
        assert items.resume == 11  # before what is held
        assert await taken(watched, 3, since=items.resume) == [("b", 12), ("end", 13), ("a", 14)]
        show(watched, ("end", 15), ("b", 16))
        assert await anext(items) == Thing("end", 15)
        assert items.resume == 13
        until = now() + 0.05
        items.hold(until)
        assert [await anext(items), await anext(items)] == [Thing("a", 14), Thing("b", 16)]
        assert now() >= until
        assert items.resume == 16


async def test_a_watch_waits_for_an_end_while_others_are_held_and_resumes_before_them() -> None:
    watched = things()
    now = asyncio.get_running_loop().time
    with watched.watch(
        10, lambda _: True, lambda: each(()), at_once=10, ended=lambda thing: thing.name == "end"
    ) as items:
        items.hold(now() + 60.0)
        show(watched, ("a", 11), ("a", 12))
        following = asyncio.ensure_future(anext(items))
        asyncio.get_running_loop().call_soon(show, watched, ("b", 12))
        asyncio.get_running_loop().call_soon(show, watched, ("end", 13))
        assert await following == Thing("end", 13)
        watched.cut_off(ClosingError("the controller ends"))
        with pytest.raises(ClosingError):
            await anext(items)
        assert items.resume == 11  # a watch that is made again is shown what was held
