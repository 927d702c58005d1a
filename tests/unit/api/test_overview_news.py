"""What a part of an overview tells one that takes its time."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass

from control.front.api.overview_news import PartNews, WatchedThings
from control.front.watch import Watched, each
from shoal.v1 import overview_service_pb2 as v1

NODES = v1.OVERVIEW_PART_NODES


@dataclass(frozen=True)
class Thing:
    """A node of which nothing but its name counts."""

    name: str
    revision: int


def add(response: v1.WatchOverviewResponse, thing: Thing) -> int:
    response.nodes.add(name=thing.name, revision=thing.revision)
    return 10


class Things:
    """Some that are watched, at most three of which may wait."""

    def __init__(self) -> None:
        self.watched: Watched[str, Thing] = Watched(10, changes_kept=5, pending_max=3)
        self.known: dict[str, Thing] = {"a": Thing("a", 10)}
        self.part = WatchedThings(
            NODES,
            lambda since: self.watched.watch(
                since, lambda _: True, lambda: each([*self.known.values()]), at_once=10
            ),
            add,
        )

    def show(self, *named: tuple[str, int]) -> None:
        for name, revision in named:
            self.known[name] = Thing(name, revision)
            self.watched.show(name, self.known[name])


def told(news: PartNews) -> tuple[bool, dict[str, int], bool, int]:
    response = news.response
    nodes = {node.name: node.revision for node in response.nodes}
    return bool(response.begun), nodes, bool(response.complete), news.place


async def test_a_snapshot_says_where_it_begins_and_ends_and_the_newest_follows() -> None:
    things = Things()
    async with aclosing(things.part.news(0)) as news:
        assert told(await anext(news)) == (True, {"a": 10}, False, 0)
        things.show(("b", 11), ("a", 12), ("b", 13))
        assert told(await anext(news)) == (False, {}, True, 10)
        assert told(await anext(news)) == (False, {"a": 12, "b": 13}, False, 13)
    async with aclosing(things.part.news(12)) as news:
        assert told(await anext(news)) == (False, {"b": 13}, False, 13)


async def test_one_for_which_too_much_waits_begins_anew() -> None:
    things = Things()
    async with aclosing(things.part.news(10)) as news:
        things.show(("b", 11))
        assert told(await anext(news)) == (False, {"b": 11}, False, 11)
        things.show(*((name, 12 + index) for index, name in enumerate("cdef")))
        found = told(await anext(news))
        assert found[0] is True
        assert found[1] == {"a": 10, "b": 11, "c": 12, "d": 13, "e": 14, "f": 15}
        assert told(await anext(news)) == (False, {}, True, 15)
