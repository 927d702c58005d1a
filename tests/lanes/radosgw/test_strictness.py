"""What makes radosgw the strict server: nobody gets in with a wrong key, nor with an address that he changed."""

import aiohttp
import pytest
from botocore.exceptions import ClientError
from yarl import URL

from services.archive.s3_server import S3Server
from services.archive.s3_store import S3Store, s3_client
from tests.kit.radosgw import Radosgw
from tests.kit.s3_servers import make_bucket


async def test_a_wrong_key_and_a_changed_address_are_refused(
    radosgw: Radosgw, radosgw_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = S3Server(radosgw_endpoint)
    bucket = await make_bucket(server)
    async with (
        S3Store(server, bucket, new_id=lambda: "probe") as store,
        aiohttp.ClientSession() as web,
    ):
        assert store.conditional_put
        await store.put("mine", b"hello")
        await store.put("other", b"secret")
        signed = await store.presign_get("mine", expires_seconds=60)
        for url, status in ((signed, 200), (signed.replace("/mine", "/other"), 403)):
            async with web.get(URL(url, encoded=True)) as response:
                assert response.status == status
        put = await store.presign_put("new", size_bytes=5, sha256="0" * 64, expires_seconds=60)
        # The hash is part of what was signed, though this server does not reckon it anew.
        changed = {**put.headers, "x-amz-meta-sha256": "1" * 64}
        async with web.put(URL(put.url, encoded=True), data=b"hello", headers=changed) as response:
            assert response.status == 403
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", radosgw.credentials["AWS_SECRET_ACCESS_KEY"][::-1])
    async with s3_client(server) as client:
        with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
            await client.list_objects_v2(Bucket=bucket)
