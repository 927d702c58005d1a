"""Gossip of a cluster with identity is sealed by itself, and a stranger without its key is no member."""

import base64
import json
from functools import partial
from pathlib import Path

import pytest

from services.membership.keyring import Keyring
from services.membership.keyring_file import KeyringFile
from services.membership.message import SwimState
from services.membership.preset import LOCAL
from shoal.client import Client
from shoal.errors import ShoalError
from shoal.gossip_key import key_id
from shoal.identity import Role
from tests.kit.gossip import running, states
from tests.kit.joined import issued
from tests.kit.running_controller import running_controller
from tests.kit.serf import SerfAgent
from tests.kit.until import until

ALIVE = SwimState.ALIVE
STRANGE = b"s" * 32


async def test_the_key_of_a_new_cluster_seals_its_gossip_and_is_kept(tmp_path: Path) -> None:
    keyring = tmp_path / "identity" / "gossip.keyring"
    async with running_controller(tmp_path, insecure=False) as addresses:
        (key,) = KeyringFile(keyring).read()
        assert keyring.stat().st_mode & 0o777 == 0o600
        assert len(key) == 32
        async with (
            running("a", preset=LOCAL, keyring=Keyring([key])) as own,
            running("b", preset=LOCAL, keyring=Keyring([STRANGE])) as stranger,
            running("c", preset=LOCAL) as plain,
        ):
            for member in (stranger, plain):
                assert await member.join([addresses.gossip]) == 0
            assert await own.join([addresses.gossip]) == 1
            await until(lambda: states(own).get("controller") is ALIVE, 10, "the controller")
            assert set(states(own)) == {"a", "controller"}
            assert set(states(stranger)) == {"b"}
            assert set(states(plain)) == {"c"}
    async with running_controller(tmp_path, insecure=False):
        assert KeyringFile(keyring).read() == (key,)


async def test_a_key_of_the_operator_is_taken_in_the_place_of_it(tmp_path: Path) -> None:
    async with (
        running_controller(tmp_path, insecure=False, gossip_keys=(STRANGE,)) as addresses,
        running("b", preset=LOCAL, keyring=Keyring([STRANGE])) as member,
    ):
        assert await member.join([addresses.gossip]) == 1
    assert not (tmp_path / "identity" / "gossip.keyring").exists()


async def test_a_serf_agent_joins_with_the_key_and_the_keyring_file(tmp_path: Path) -> None:
    async with running_controller(tmp_path, insecure=False) as addresses:
        keyring = tmp_path / "identity" / "gossip.keyring"
        (key,) = KeyringFile(keyring).read()
        assert json.loads(keyring.read_text()) == [base64.b64encode(key).decode()]
        for folder in ("one", "two"):
            (tmp_path / folder).mkdir()
        async with (
            SerfAgent(
                name="serf-1",
                folder=tmp_path / "one",
                key=base64.b64encode(key).decode(),
                profile="local",
                join=(addresses.gossip,),
            ) as first,
            SerfAgent(
                name="serf-2",
                folder=tmp_path / "two",
                keyring=keyring,
                profile="local",
                join=(addresses.gossip,),
            ) as second,
        ):

            async def seen(agent: SerfAgent) -> bool:
                everybody = {"controller", "serf-1", "serf-2"}
                return await agent.members() == dict.fromkeys(everybody, "alive")

            for agent in (first, second):
                await until(partial(seen, agent), 50, f"all at {agent.name}")


async def test_serf_rotates_the_ring_of_the_cluster_and_a_plain_agent_of_it_does_not(
    tmp_path: Path,
) -> None:
    keyring = tmp_path / "identity" / "gossip.keyring"
    async with running_controller(tmp_path, insecure=False) as addresses:
        (old,) = KeyringFile(keyring).read()
        for folder in ("one", "two"):
            (tmp_path / folder).mkdir()
        copy = tmp_path / "one" / "keyring.json"
        copy.write_bytes(keyring.read_bytes())
        async with (
            SerfAgent(
                name="serf-1",
                folder=tmp_path / "one",
                keyring=copy,
                profile="local",
                join=(addresses.gossip,),
            ) as sealed,
            SerfAgent(name="plain", folder=tmp_path / "two", profile="local") as plain,
        ):

            async def both() -> bool:
                return await sealed.members() == {"controller": "alive", "serf-1": "alive"}

            await until(both, 50, "the controller at serf-1")
            code, said = await plain.command("join", addresses.gossip)
            assert code != 0, said
            new = base64.b64encode(STRANGE).decode()
            # What it asks for in the clear reaches no other member.
            await plain.command("keys", f"-install={new}")
            assert KeyringFile(keyring).read() == (old,)
            for step in (
                f"-install={new}",
                f"-use={new}",
                f"-remove={base64.b64encode(old).decode()}",
            ):
                code, said = await sealed.command("keys", step)
                assert code == 0, said
            await until(lambda: KeyringFile(keyring).read() == (STRANGE,), 30, "the ring kept")
            assert json.loads(copy.read_text()) == [new]
            assert await both()


async def test_a_holder_of_the_old_key_does_not_hear_the_new_one(tmp_path: Path) -> None:
    keyring = tmp_path / "identity" / "gossip.keyring"
    async with running_controller(tmp_path, insecure=False) as addresses:
        (old,) = KeyringFile(keyring).read()
        person = issued(tmp_path, Role.OPERATOR, "ann")
        async with (
            running("thief", preset=LOCAL, keyring=Keyring([old])) as thief,
            Client(addresses.grpc, credentials=person) as client,
        ):
            assert await thief.join([addresses.gossip]) == 1
            assert set((await thief.serf.list_keys()).keys) == {base64.b64encode(old).decode()}
            name, report = await client.rotate_gossip_key()
            assert (report.members, report.answered) == (2, 1)
            (new,) = KeyringFile(keyring).read()
            assert key_id(new) == name
            assert new != old
            assert set((await thief.serf.list_keys()).keys) == {base64.b64encode(old).decode()}
            assert await thief.join([addresses.gossip]) == 0
            assert thief.keyring.keys == (old,)
    async with running_controller(tmp_path, insecure=False):
        assert KeyringFile(keyring).read() == (new,)


async def test_a_cluster_without_identity_refuses_a_rotation_over_sessions(tmp_path: Path) -> None:
    async with (
        running_controller(tmp_path, gossip_keys=(STRANGE,)) as addresses,
        Client(addresses.grpc) as client,
    ):
        with pytest.raises(ShoalError, match="no identity, so keys travel by gossip"):
            await client.rotate_gossip_key()
