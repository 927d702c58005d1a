"""A rotation of the key that is cut off anywhere, and one beside calls that set and remove, lose no value."""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from control.core.rows import SecretRow
from control.front.secret_office import SecretOffice
from control.front.secret_vault import SecretVault
from control.leader.plane_config import PlaneConfig
from services.runtime.log import CountedLog
from tests.unit.control.world import Clock, running_plane

COUNT = 120
"""More than are sealed anew in one commit."""


class CutOffError(Exception):
    """The process is killed here."""


class Chance:
    """Random bytes, until there are no more: each key and each seal takes some."""

    def __init__(self) -> None:
        self.left = 1_000_000

    def __call__(self, count: int) -> bytes:
        if self.left == 0:
            raise CutOffError
        self.left -= 1
        return secrets.token_bytes(count)


@asynccontextmanager
async def office(folder: Path, chance: Chance) -> AsyncIterator[tuple[SecretOffice, SecretVault]]:
    """An office on a real store, with the keys that are in its file."""
    vault, clock = SecretVault(folder / "secrets.keys", chance), Clock()
    config = PlaneConfig(secret_keys=vault.ids)
    async with running_plane(folder / "controller.db", config, clock) as plane:
        log = CountedLog(logging.getLogger(__name__), clock)
        yield SecretOffice(plane, vault, wall=clock.wall, log=log, insecure=False), vault


def value_of(number: int) -> bytes:
    return f"the value of secret {number}".encode()


def values(found: list[SecretRow], vault: SecretVault) -> dict[str, bytes]:
    return {row.name: vault.open(row) for row in found}


def rows(own: SecretOffice) -> list[SecretRow]:
    listed = own.list("lab")
    assert all(readable for _, readable in listed)
    return [row for row, _ in listed]


EVERY = {f"s{number}": value_of(number) for number in range(COUNT)}


@pytest.mark.parametrize("steps", [0, 1, 50, 101, 102, COUNT, COUNT + 1])
async def test_a_rotation_that_is_cut_off_loses_nothing_and_is_finished_by_the_next(
    tmp_path: Path, steps: int
) -> None:
    chance = Chance()
    async with office(tmp_path, chance) as (own, _):
        for name, value in EVERY.items():
            await own.set("lab", name, value, None)
        chance.left = steps
        if steps <= COUNT:
            with pytest.raises(CutOffError):
                await own.rotate()
        else:
            await own.rotate()
    async with office(tmp_path, Chance()) as (own, vault):
        assert values(rows(own), vault) == EVERY
        done = await own.rotate()
        assert (done.secrets, done.unreadable) == (COUNT, 0)
    async with office(tmp_path, Chance()) as (own, vault):
        assert vault.ids() == {done.key_id}
        assert values(rows(own), vault) == EVERY


async def test_what_is_set_and_removed_during_a_rotation_is_as_it_was_asked_for(
    tmp_path: Path,
) -> None:
    async with office(tmp_path, Chance()) as (own, vault):
        for name, value in EVERY.items():
            await own.set("lab", name, value, None)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(own.rotate())
            for number in range(0, COUNT, 2):
                tasks.create_task(own.set("lab", f"s{number}", b"newer", None))
                tasks.create_task(own.remove("lab", f"s{number + 1}", None))
        newer = {f"s{number}": b"newer" for number in range(0, COUNT, 2)}
        assert values(rows(own), vault) == newer
        assert vault.ids() == {vault.sealing}
    async with office(tmp_path, Chance()) as (own, vault):
        assert values(rows(own), vault) == newer


async def test_calls_that_set_one_secret_at_once_are_all_taken_in_some_order(
    tmp_path: Path,
) -> None:
    async with office(tmp_path, Chance()) as (own, vault):
        done = await asyncio.gather(
            *(own.set("lab", "token", value_of(number), None) for number in range(20))
        )
        assert sorted(row.version for row in done) == list(range(1, 21))
        last = max(done, key=lambda row: row.version)
        assert values(rows(own), vault) == {"token": vault.open(last)}
