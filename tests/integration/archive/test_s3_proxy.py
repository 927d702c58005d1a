"""A proxy of the environment: not on the way to a server of one's own network, and on the way to others."""

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from services.archive.s3_server import S3Server
from services.archive.s3_store import s3_client
from tests.kit.archive import served_archive
from tests.kit.s3_servers import CREDENTIALS, make_bucket
from tests.kit.web_proxy import WebProxy


async def test_only_what_is_far_is_reached_by_the_proxy(
    moto_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with WebProxy({}) as proxy:
        for name, value in {**CREDENTIALS, **proxy.variables}.items():
            monkeypatch.setenv(name, value)
        bucket = await make_bucket(S3Server(moto_endpoint))
        async with served_archive(f"s3://{bucket}/main?endpoint={moto_endpoint}") as archive:
            await archive.store.put("ns/x", b"people")
            assert await archive.store.get("ns/x") == b"people"
        assert proxy.asked == []
        async with s3_client(S3Server("http://objects.example.com")) as client:
            with pytest.raises((BotoCoreError, ClientError)):
                await client.head_bucket(Bucket="far")
        assert set(proxy.asked) == {"HEAD http://objects.example.com/far"}
