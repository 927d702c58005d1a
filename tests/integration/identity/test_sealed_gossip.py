"""Gossip of a cluster with identity is sealed by itself, and a stranger without its key is no member."""

import base64
import json
from functools import partial
from pathlib import Path

from services.membership.keyring import Keyring
from services.membership.keyring_file import KeyringFile
from services.membership.message import SwimState
from services.membership.preset import LOCAL
from tests.kit.gossip import running, states
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
