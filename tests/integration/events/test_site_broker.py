"""A broker of a real site: what is wrong with TLS, passwords, certificates and access lists is said, and mended."""

import asyncio
import contextlib
import datetime as dt
import logging
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from services.events.broker_url import parse_url
from services.events.outbox.shell import OutboxShell
from tests.integration.events.test_outbox_shell import MemoryRows, publisher_at, running
from tests.kit.mosquitto import Mosquitto
from tests.kit.ports import free_port
from tests.kit.programs import program
from tests.kit.site_authority import KeyPair, SiteAuthority
from tests.kit.until import until

USER = "controller"


@dataclass
class Site:
    """A broker with a certificate of the site's authority, a user, a client certificate and an access list."""

    folder: Path
    broker: Mosquitto
    authority: SiteAuthority
    mine: KeyPair
    password_file: Path
    passwords: Path
    access: Path

    def publisher(self, rows: MemoryRows, options: str = "", user: str = USER) -> OutboxShell:
        """A publisher with everything right, but for what `options` says."""
        words = (
            options
            or f"ca={self.authority.file}&certificate={self.mine.certificate}&key={self.mine.key}"
        )
        url = f"mqtts://{user + '@' if user else ''}127.0.0.1:{self.broker.port}?{words}"
        return publisher_at(
            rows, replace(parse_url(url), password_file=self.password_file if user else None)
        )

    def set_password(self, word: str) -> None:
        """Let the broker know another password."""
        subprocess.run(
            [program("mosquitto_passwd"), "-b", "-c", str(self.passwords), USER, word], check=True
        )

    def allow(self, *topics: str) -> None:
        """Write the access list."""
        lines = (f"topic write {topic}" for topic in topics)
        self.access.write_text("\n".join((f"user {USER}", *lines, "")))

    async def restart(self) -> None:
        """Let the broker read its files again; its port stays."""
        self.broker.stop()
        await asyncio.to_thread(self.broker.start)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    authority = SiteAuthority(tmp_path / "pki")
    served = authority.issue("broker")
    passwords, access = tmp_path / "passwords", tmp_path / "access"
    broker = Mosquitto(
        tmp_path / "mosquitto",
        f"allow_anonymous false\npassword_file {passwords}\nacl_file {access}\n"
        f"cafile {authority.file}\ncertfile {served.certificate}\nkeyfile {served.key}\n"
        "require_certificate true",
    )
    made = Site(
        tmp_path, broker, authority, authority.issue("shoal"), tmp_path / "word", passwords, access
    )
    made.set_password("s3cret")
    made.allow("shoal/#")
    made.password_file.write_text("s3cret\n")
    await asyncio.to_thread(broker.start)
    try:
        yield made
    finally:
        broker.stop()


def some(count: int = 3) -> MemoryRows:
    rows = MemoryRows()
    for _ in range(count):
        rows.add("pipelines/p")
    return rows


async def says(publishing: OutboxShell, words: str) -> None:
    await until(
        lambda: words in publishing.sentence("3 events wait"),
        20,
        f"{words}; instead: {publishing.sentence('')}",
    )


async def delivered(rows: MemoryRows) -> None:
    await until(lambda: not rows.rows, 30, "an empty outbox")
    assert rows.aside == {}


async def test_a_site_that_wants_all_of_it_gets_every_event(site: Site) -> None:
    rows = some()
    async with running(site.publisher(rows)):
        await delivered(rows)


async def test_a_wrong_password_is_said_and_mended_in_its_file(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    rows = some()
    site.password_file.write_text("wr0ng\n")
    async with running(site.publisher(rows)) as publishing:
        await says(publishing, "does not let user 'controller' in")
        assert "--mqtt-password-file" in publishing.sentence("")
        assert len(rows.rows) == 3
        site.password_file.unlink()
        await says(
            publishing, f"--mqtt-password-file: the file {site.password_file} cannot be read"
        )
        site.password_file.write_text("s3cret\n")
        await delivered(rows)
        # The password is changed at the broker, then in the file.
        site.set_password("an0ther")
        await site.restart()
        rows.add("pipelines/p")
        publishing.grown()
        await says(publishing, "does not let user 'controller' in")
        site.password_file.write_text("an0ther\n")
        await delivered(rows)
    told = [record.__dict__ for record in caplog.records if record.levelno >= logging.WARNING]
    assert any("does not let user" in str(line) for line in told)
    assert not any(word in str(told) for word in ("wr0ng", "s3cret", "an0ther"))


async def test_without_a_user_it_is_said_what_is_missing(site: Site) -> None:
    rows = some()
    async with running(site.publisher(rows, user="")) as publishing:
        await says(publishing, "it does not let the holder of our certificate")
    assert len(rows.rows) == 3


async def test_an_authority_that_is_not_known_is_said_and_mended_in_its_file(site: Site) -> None:
    rows = some()
    mine = f"certificate={site.mine.certificate}&key={site.mine.key}"
    async with running(site.publisher(rows, mine)) as publishing:
        await says(
            publishing,
            "issued by no authority that this system trusts: name the file of the broker's",
        )
    other = SiteAuthority(site.folder / "other", "other")
    async with running(site.publisher(rows, f"ca={other.file}&{mine}")) as publishing:
        await says(publishing, f"issued by no authority in {other.file}")
        other.file.write_text("no certificate")
        await says(publishing, f"the CA file {other.file} cannot be used")
        assert len(rows.rows) == 3
        other.file.write_bytes(site.authority.file.read_bytes())
        await delivered(rows)


async def test_a_certificate_of_the_broker_that_is_over_or_of_another_name_is_said(
    site: Site,
) -> None:
    rows = some()
    site.authority.issue("broker", ends_in=-dt.timedelta(hours=1))
    await site.restart()
    async with running(site.publisher(rows)) as publishing:
        await says(publishing, "its certificate is over: renew it at the broker")
        site.authority.issue("broker", address="10.9.8.7")
        await site.restart()
        await says(publishing, "its certificate is for another name than 127.0.0.1")
        site.authority.issue("broker")
        await site.restart()
        await delivered(rows)


async def test_a_certificate_of_ours_is_said_to_be_missing_over_or_of_a_stranger_and_mended(
    site: Site,
) -> None:
    rows = some()
    async with running(site.publisher(rows, f"ca={site.authority.file}")) as publishing:
        await says(publishing, "it wants a certificate of ours: name certificate=FILE and key=FILE")
    async with running(site.publisher(rows)) as publishing:
        await delivered(rows)
        rows.add("pipelines/p")
        site.authority.issue("shoal", ends_in=-dt.timedelta(hours=1))
        await site.restart()
        publishing.grown()
        await says(publishing, f"our certificate {site.mine.certificate} is over")
        stranger = SiteAuthority(site.folder / "stranger", "stranger").issue("shoal")
        for mine, theirs in (
            (site.mine.certificate, stranger.certificate),
            (site.mine.key, stranger.key),
        ):
            mine.write_bytes(theirs.read_bytes())
        await says(
            publishing, f"it does not know the authority of our certificate {site.mine.certificate}"
        )
        site.authority.issue("shoal")
        await delivered(rows)


async def test_files_of_a_certificate_that_cannot_be_used_are_named(site: Site) -> None:
    rows = some()
    key = site.mine.key
    async with running(site.publisher(rows)) as publishing:
        await delivered(rows)
        rows.add("pipelines/p")
        key.write_bytes(site.authority.issue("other").key.read_bytes())
        await site.restart()
        publishing.grown()
        await says(publishing, "the key belongs to another certificate")
        key.write_text("no key")
        await says(publishing, "one of them is no PEM file")
        key.unlink()
        await says(publishing, f"the file {key} cannot be read: No such file")
        site.authority.issue("shoal", password="passphrase")  # noqa: S106
        await says(publishing, f"the key file {key} is locked with a passphrase")
        site.authority.issue("shoal")
        await delivered(rows)


async def test_a_topic_that_is_denied_keeps_its_events_until_it_is_allowed(site: Site) -> None:
    rows = some()
    rows.add("pipelines/allowed")
    site.allow("shoal/ns/pipelines/allowed/#")
    await site.restart()
    async with running(site.publisher(rows)) as publishing:
        await until(lambda: set(rows.rows) == {1, 2, 3}, 30, "what is allowed")
        await says(publishing, "events of one subject wait and are tried again")
        assert "Not authorized" in publishing.resting("ns", "pipelines/p")
        site.allow("shoal/#")
        site.broker.reload()
        await delivered(rows)


async def test_a_broker_of_the_version_before_is_said(tmp_path: Path) -> None:
    """Its words: section 3.2.2.3 of MQTT 3.1.1, return code 1; another one only hangs up."""
    for answer, words in (
        (bytes([0x20, 2, 0, 1]), "does not speak MQTT 5"),
        (b"", "hung up before it answered"),
    ):
        async with old_broker(answer) as port:
            rows = some()
            async with running(
                publisher_at(rows, parse_url(f"mqtt://127.0.0.1:{port}"))
            ) as publishing:
                await says(publishing, words)
            assert len(rows.rows) == 3


@contextlib.asynccontextmanager
async def old_broker(answer: bytes) -> AsyncIterator[int]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            await reader.read(1000)
            writer.write(answer)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()


async def test_what_is_not_there_or_speaks_no_tls_is_said(tmp_path: Path) -> None:
    rows = some()
    plain = Mosquitto(tmp_path / "mosquitto")
    await asyncio.to_thread(plain.start)
    away = free_port()
    try:
        for url, words in (
            (f"mqtt://127.0.0.1:{away}", f"nothing listens on port {away} of 127.0.0.1"),
            ("mqtt://broker.invalid", "its name broker.invalid has no address here"),
            (f"mqtts://127.0.0.1:{plain.port}", "TLS"),
        ):
            async with running(publisher_at(rows, parse_url(url))) as publishing:
                await says(publishing, words)
        assert len(rows.rows) == 3
    finally:
        plain.stop()


async def test_two_controllers_of_one_name_at_one_broker_are_told(mosquitto: Mosquitto) -> None:
    address = parse_url(f"mqtt://127.0.0.1:{mosquitto.port}")
    first, second = some(), some()
    async with running(publisher_at(first, address)) as one, running(publisher_at(second, address)):
        await says(one, "a second controller may have the same --name at it")
        await delivered(first)
        await delivered(second)
