"""The interceptor before a server of its own: methods without a rule, strangers, and what is told of refusals."""

import datetime as dt
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import grpc
import grpc.aio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from control.core.errors import StoreFailedError
from control.core.event_query import EventQuery
from control.front.access.checked_call import caller_of
from control.front.access.interceptor import AccessInterceptor
from control.front.access.quotas import CallerLimits, Quotas
from control.front.access.refused_calls import RefusedCalls
from control.front.control_plane import ControlPlane
from control.front.rpc_status import refusal
from services.identity.authority import Authority, make_authority
from services.identity.issuers import Issuers
from services.runtime.rpc import ErrorInterceptor, bind, server_options
from shoal.channel import USER, channel_options, open_channel
from shoal.credentials import Credentials
from shoal.identity import Identity, Role
from shoal.signing_request import new_key
from tests.integration.access.test_callers import reason_of
from tests.kit.identities import ProvenCluster
from tests.unit.control.world import Clock, running_plane

LIST = "/shoal.v1.NodesService/ListNodes"
TOKENS = "/shoal.v1.IdentityService/ListTokens"


class Echo(grpc.GenericRpcHandler):
    """Implements every method, and answers with the caller that it was told of."""

    def service(self, handler_call_details: Any) -> Any:
        async def answer(_request: Any, context: Any) -> bytes:
            caller = caller_of(context)
            return b"" if caller is None else caller.described.encode()

        return cast("Any", grpc.unary_unary_rpc_method_handler(answer))


@dataclass
class Door:
    """A server behind an interceptor."""

    access: AccessInterceptor
    address: str
    plane: ControlPlane
    believed: list[Sequence[Authority]]

    async def call(self, credentials: Credentials, path: str = LIST, *metadata: Any) -> str:
        """Call a method; returns the caller that the service saw, or why it was refused."""
        name = "controller.c1.shoal"
        async with open_channel(
            self.address, channel_options(USER), credentials, expect=name
        ) as channel:
            method = cast("Any", channel.unary_unary(path))
            try:
                return bytes(await method(b"", timeout=20, metadata=metadata)).decode()
            except grpc.aio.AioRpcError as error:
                return reason_of(error)

    async def told(self) -> list[dict[str, Any]]:
        """The events of callers."""
        page = await self.plane.events(EventQuery("default"), page_size=1000)
        return [json.loads(one.data_json) for one in page.items if "caller" in one.type]


@asynccontextmanager
async def door(
    tmp_path: Path, cluster: ProvenCluster, limits: CallerLimits | None = None
) -> AsyncIterator[Door]:
    async with running_plane(tmp_path / "control.db") as plane:
        clock = Clock()
        believed: list[Sequence[Authority]] = [(cluster.authority,)]
        issuers = Issuers(lambda: believed[-1])
        access = AccessInterceptor(
            "c1",
            lambda _: False,
            issuers.signed,
            Quotas(limits or CallerLimits(), clock),
            plane,
            clock,
        )
        server = grpc.aio.server(
            interceptors=[ErrorInterceptor(refusal), access], options=server_options(USER)
        )
        server.add_generic_rpc_handlers((Echo(),))
        own = cluster.credentials(Role.CONTROLLER, "main")
        port = bind(server, "127.0.0.1:0", lambda: own)
        await server.start()
        try:
            yield Door(access, f"127.0.0.1:{port}", plane, believed)
        finally:
            await server.stop(0)


async def test_a_method_without_a_rule_is_refused_although_it_is_implemented(
    tmp_path: Path,
) -> None:
    cluster = ProvenCluster()
    async with door(tmp_path, cluster) as opened:
        operator = cluster.credentials(Role.OPERATOR, "ann")
        assert await opened.call(operator) == "operator/ann"
        assert await opened.call(operator, "/shoal.v1.NodesService/EraseAll") == "NOT_ALLOWED"


async def test_a_service_knows_the_user_of_a_gateway(tmp_path: Path) -> None:
    cluster = ProvenCluster()
    async with door(tmp_path, cluster) as opened:
        gateway = cluster.credentials(Role.GATEWAY, "web")
        assert await opened.call(gateway, LIST, ("shoal-user", "bob")) == "gateway/web for bob"


async def test_an_authority_of_two_clusters_lets_none_of_one_into_the_other(tmp_path: Path) -> None:
    cluster = ProvenCluster()
    other = ProvenCluster("c2")
    other.authority = cluster.authority  # both imported the one of their owner
    async with door(tmp_path, cluster) as opened:
        assert await opened.call(other.credentials(Role.OPERATOR, "ann")) == "OTHER_CLUSTER"


async def test_a_certificate_of_the_authority_without_an_identity_is_none(tmp_path: Path) -> None:
    cluster = ProvenCluster()
    async with door(tmp_path, cluster) as opened:
        assert await opened.call(anonymous(cluster)) == "NO_IDENTITY"


async def test_a_connection_does_not_outlive_its_authority(tmp_path: Path) -> None:
    """The handshake is over, and TLS asks no more."""
    cluster = ProvenCluster()
    async with door(tmp_path, cluster) as opened:
        ann = cluster.credentials(Role.OPERATOR, "ann")
        async with open_channel(opened.address, channel_options(USER), ann) as channel:
            method = cast("Any", channel.unary_unary(LIST))
            assert await method(b"", timeout=20) == b"operator/ann"
            new = make_authority("c1", now=dt.datetime.now(dt.UTC))
            opened.believed.append((new, cluster.authority))
            assert await method(b"", timeout=20) == b"operator/ann"
            opened.believed.append((new,))
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await method(b"", timeout=20)
            assert error.value.code() is grpc.StatusCode.UNAUTHENTICATED
            assert reason_of(error.value) == "AUTHORITY_REMOVED"


def anonymous(cluster: ProvenCluster) -> Credentials:
    """What an authority may have signed for something else before it was imported."""
    key = new_key()
    private = cast(
        "ec.EllipticCurvePrivateKey", serialization.load_pem_private_key(key, password=None)
    )
    signer = cast(
        "ec.EllipticCurvePrivateKey",
        serialization.load_pem_private_key(cluster.authority.key, password=None),
    )
    issuer = x509.load_pem_x509_certificate(cluster.authority.certificate).subject
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "printer")]))
        .issuer_name(issuer)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .sign(signer, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    identity = Identity("c1", Role.OPERATOR, "ann")  # which it does not say
    return Credentials(identity, key, pem, cluster.authority.certificate)


async def test_refused_calls_are_counted_and_told_once(tmp_path: Path) -> None:
    cluster = ProvenCluster()
    async with door(tmp_path, cluster) as opened:
        viewer = cluster.credentials(Role.VIEWER, "ann")
        for path in (TOKENS, TOKENS, "/x/Y"):
            assert await opened.call(viewer, path) == "NOT_ALLOWED"
        assert await opened.call(viewer) == "viewer/ann"
        assert await opened.call(anonymous(cluster)) == "NO_IDENTITY"
        await opened.access.tell_refused()
        await opened.access.tell_refused()
        viewers, nobodies = sorted(await opened.told(), key=lambda one: -one["calls"])
        assert viewers["caller"] == "viewer/ann"
        assert viewers["calls"] == 3
        assert viewers["reasons"] == {"NOT_ALLOWED": 3}
        assert viewers["method"] == "x.Y"
        assert viewers["address"] == "127.0.0.1"
        assert (nobodies["caller"], nobodies["reasons"]) == ("nobody", {"NO_IDENTITY": 1})


async def test_refusals_that_cannot_be_recorded_are_told_later(tmp_path: Path) -> None:
    cluster = ProvenCluster()
    async with door(tmp_path, cluster) as opened:
        viewer = cluster.credentials(Role.VIEWER, "ann")
        assert await opened.call(viewer, TOKENS) == "NOT_ALLOWED"
        opened.access._audit = Full()
        await opened.access.tell_refused()
        assert await opened.told() == []
        opened.access._audit = opened.plane
        await opened.access.tell_refused()
        assert [one["calls"] for one in await opened.told()] == [1]


class Full:
    """An audit whose disk is full."""

    async def note_call(self, note: object, name: str) -> None:
        raise StoreFailedError("the disk is full")

    async def note_refused(self, caller: str, calls: RefusedCalls) -> None:
        raise StoreFailedError("the disk is full")


async def test_calls_beyond_the_quota_are_refused_also_if_they_are_refused_anyway(
    tmp_path: Path,
) -> None:
    cluster = ProvenCluster()
    async with door(tmp_path, cluster, CallerLimits(calls_per_second=1)) as opened:
        viewer = cluster.credentials(Role.VIEWER, "ann")
        answers = [await opened.call(viewer, TOKENS) for _ in range(3)]
        assert answers == ["NOT_ALLOWED", "NOT_ALLOWED", "QUOTA"]
        assert await opened.call(cluster.credentials(Role.VIEWER, "bob")) == "viewer/bob"
