"""Pages of lists that are in memory, and the tokens between them."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest

from control.core.errors import PageTokenError
from control.front.api.memory_page import key_of, page_of
from control.front.page_token import PageTokens
from services.runtime.rpc import RpcError
from shoal.v1 import identity_service_pb2, nodes_service_pb2, secrets_service_pb2

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Thing:
    name: str
    time: datetime


def key(thing: Thing) -> str:
    return key_of(thing.time, thing.name)


def things(*numbers: int) -> list[Thing]:
    """Two of each moment."""
    return [Thing(f"t{number}", BEGAN + timedelta(seconds=number // 2)) for number in numbers]


def listed(
    items: Callable[[], list[Thing]], size: int, *, backwards: bool = False
) -> list[list[Thing]]:
    found: list[list[Thing]] = []
    token = ""
    while True:
        request = identity_service_pb2.ListTokensRequest(page_size=size, page_token=token)
        tokens = PageTokens("ListTokens", request)
        page, token = page_of(items(), key, request, tokens, backwards=backwards)
        found.append(list(page))
        if not token:
            return found


@pytest.mark.parametrize("backwards", [False, True])
def test_pages_together_are_the_list(*, backwards: bool) -> None:
    every = things(*range(10))
    shuffled = Random(1).sample(every, 10)
    ordered = every[::-1] if backwards else every
    for size in (1, 3, 9, 10, 11):
        pages = listed(lambda: shuffled, size, backwards=backwards)
        assert [one for page in pages for one in page] == ordered
        assert len(pages) == -(-10 // size), "the last one says that it is the last"
    assert listed(lambda: shuffled, 0, backwards=backwards) == [ordered]
    assert listed(list, 5) == [[]]


@pytest.mark.parametrize("backwards", [False, True])
def test_a_list_stays_right_while_things_come_and_go(*, backwards: bool) -> None:
    rng = Random(2)
    stays = set(things(*range(0, 200, 2)))
    there = {*stays, *things(*range(1, 200, 2))}

    def now() -> list[Thing]:
        others = sorted(there - stays, key=key)
        there.difference_update(rng.sample(others, min(2, len(others))))
        there.update(things(rng.randrange(200, 400)))
        return list(there)

    shown = [one for page in listed(now, 7, backwards=backwards) for one in page]
    assert len(shown) == len(set(shown))
    assert stays <= set(shown)


def test_a_page_without_a_size_has_what_is_usual() -> None:
    request = nodes_service_pb2.ListNodesRequest()
    tokens = PageTokens("ListNodes", request)
    page, token = page_of(things(*range(9)), key, request, tokens, size_unset=4)
    assert len(page) == 4
    assert token
    negative = nodes_service_pb2.ListNodesRequest(page_size=-1)
    with pytest.raises(RpcError, match="page_size is -1"):
        page_of([], key, negative, PageTokens("ListNodes", negative))


def test_a_token_is_of_its_list_and_of_its_question() -> None:
    asked = secrets_service_pb2.ListSecretsRequest(namespace="lab", page_size=3)
    token = PageTokens("ListSecrets", asked).write(("a",))
    asked.page_token, asked.page_size = token, 7
    assert PageTokens("ListSecrets", asked).read(str, 1) == ("a",)
    others: list[tuple[str, Any]] = [
        ("ListTokens", asked),
        (
            "ListSecrets",
            secrets_service_pb2.ListSecretsRequest(namespace="other", page_token=token),
        ),
        ("ListMembers", nodes_service_pb2.ListMembersRequest(page_token=token)),
    ]
    for method, request in others:
        with pytest.raises(PageTokenError, match="of another list"):
            PageTokens(method, request).read(str, 1)
    with pytest.raises(PageTokenError, match="was changed on its way"):
        PageTokens("ListSecrets", asked).read(int, 1)
    with pytest.raises(PageTokenError, match="was changed on its way"):
        PageTokens("ListSecrets", asked).read(str, 2)


@pytest.mark.parametrize("token", ["x", "é", "W10", "e30", "bnVsbA", "[" * 4_000, "A" * 5_000])
def test_what_is_no_token_is_refused_with_words(token: str) -> None:
    request = nodes_service_pb2.ListMembersRequest(page_token=token)
    with pytest.raises(PageTokenError, match="none of ours: use the one of the last answer"):
        PageTokens("ListMembers", request).read(str, 1)


def test_a_number_that_no_store_has_is_refused() -> None:
    request = nodes_service_pb2.ListMembersRequest()
    for number in (-1, 1 << 63, True):
        request.page_token = PageTokens("ListMembers", request).write((number,))
        with pytest.raises(PageTokenError, match="was changed on its way"):
            PageTokens("ListMembers", request).read(int, 1)
