"""An authority of one's own: made by openssl, below a root of the organization, and imported at the first start."""

from pathlib import Path

from services.identity.cluster_identity import read_authority
from shoal.join_token import parse_token
from tests.integration.identity.test_agents import board, connected
from tests.integration.identity.test_newcomers import openssl, running
from tests.kit.until import until

EXTENSIONS = """
[authority]
basicConstraints = critical, CA:TRUE, pathlen:0
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
"""


async def authority_below_a_root(folder: Path) -> tuple[Path, Path]:
    """Make an authority as an organization has it; returns its file (key, certificate, root) and the root's."""
    root_key, root = folder / "root.key", folder / "root.pem"
    await openssl(
        "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", root_key, "-out", root,
        "-days", 3650, "-subj", "/CN=Acme root",
    )  # fmt: skip
    key, request, own = folder / "own.key", folder / "own.csr", folder / "own.pem"
    await openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", key)
    await openssl("req", "-new", "-key", key, "-subj", "/CN=Acme boards", "-out", request)
    extensions = folder / "extensions"
    extensions.write_text(EXTENSIONS)
    await openssl(
        "x509", "-req", "-in", request, "-CA", root, "-CAkey", root_key, "-CAcreateserial",
        "-days", 1000, "-extfile", extensions, "-extensions", "authority", "-out", own,
    )  # fmt: skip
    file = folder / "authority.pem"
    file.write_bytes(key.read_bytes() + own.read_bytes() + root.read_bytes())
    return file, root


async def test_a_board_joins_below_an_authority_of_ones_own(tmp_path: Path) -> None:
    file, root = await authority_below_a_root(tmp_path)
    imported = read_authority(file.read_bytes())
    async with (
        running(tmp_path / "state", authority=imported) as cluster,
        board(cluster) as cam,
    ):
        word = await cluster.token()
        assert parse_token(word).authority == imported.fingerprint
        cam.take(word)
        cam.begin()
        await until(lambda: connected(cluster))
        own = cam.state / "identity" / "identity.pem"
        bundle = cam.state / "identity" / "authorities.pem"
        await openssl("verify", "-CAfile", root, "-untrusted", bundle, own)
        await openssl("verify", "-CAfile", bundle, own)
    async with running(tmp_path / "state") as cluster:
        assert (
            await cluster.join(await cluster.token(), "cam-2")
        ).credentials.identity.name == "cam-2"
