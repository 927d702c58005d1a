"""The operator that a controller keeps for an administrator of its machine."""

import datetime as dt
from pathlib import Path

import pytest

from services.identity.authority import make_authority
from services.identity.cluster_identity import ClusterIdentity
from services.identity.local_operator import keep_local_operator
from shoal.client import Client
from shoal.credentials import read_credentials
from shoal.errors import ShoalError
from tests.kit.running_controller import running_controller

NOW = dt.datetime(2026, 11, 29, tzinfo=dt.UTC)


async def test_the_administrator_of_a_new_controller_has_an_identity(tmp_path: Path) -> None:
    folder = tmp_path / "identity" / "operator"
    async with running_controller(tmp_path, insecure=False) as addresses:
        local = read_credentials(folder)
        assert local is not None
        assert local.identity.described == "operator/local"
        assert (folder / "identity.pem").stat().st_mode & 0o777 == 0o600
        async with Client(addresses.grpc, credentials=local) as client:
            assert not await client.nodes()
    async with running_controller(tmp_path, insecure=False):
        assert read_credentials(folder) == local


async def test_the_local_operator_is_listed_and_made_anew_after_it_was_revoked(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "identity" / "operator"
    async with running_controller(tmp_path, insecure=False) as addresses:
        first = read_credentials(folder)
        async with Client(addresses.grpc, credentials=first) as client:
            (listed,) = await client.certificates()
            assert listed.identity.described == "operator/local"
            assert await client.revoke_identity(listed.identity) == 1
            with pytest.raises(ShoalError, match="revoked"):
                await client.nodes()
    async with running_controller(tmp_path, insecure=False) as addresses:
        second = read_credentials(folder)
        assert second != first
        async with Client(addresses.grpc, credentials=second) as client:
            assert not await client.nodes()
        async with Client(addresses.grpc, credentials=first) as client:
            with pytest.raises(ShoalError, match="revoked"):
                await client.nodes()


def test_the_local_operator_is_renewed_in_time_and_with_the_authorities(tmp_path: Path) -> None:
    cluster = ClusterIdentity(tmp_path, "c1", "main", lambda: NOW)
    first = keep_local_operator(cluster, NOW)
    assert keep_local_operator(cluster, NOW) == first
    late = keep_local_operator(cluster, NOW + dt.timedelta(days=250))
    assert late.certificate != first.certificate
    cluster.add_authority(make_authority("c1", now=NOW))
    assert keep_local_operator(cluster, NOW).authorities == cluster.bundle


def test_a_broken_folder_of_the_local_operator_is_made_anew(tmp_path: Path) -> None:
    cluster = ClusterIdentity(tmp_path, "c1", "main", lambda: NOW)
    first = keep_local_operator(cluster, NOW)
    (tmp_path / "operator" / "identity.pem").write_bytes(b"half")
    (tmp_path / "operator" / "identity.pem").chmod(0o644)
    again = keep_local_operator(cluster, NOW)
    assert again.identity == first.identity
    assert read_credentials(tmp_path / "operator") == again
